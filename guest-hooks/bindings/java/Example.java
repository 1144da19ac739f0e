import java.io.IOException;
import java.util.stream.IntStream;

/** Counts primes on clones, in Java; see ../README.md. */
public final class Example {
    private static final int CLONES = 4;
    private static final int LIMIT = 1000;

    private Example() {}

    private static boolean isPrime(int n) {
        return n >= 2 && IntStream.rangeClosed(2, (int) Math.sqrt(n)).allMatch(d -> n % d != 0);
    }

    public static void main(String[] args) throws IOException {
        Sf.Ticket ticket = Sf.requestTicket(CLONES);
        int place = Sf.fork(ticket);
        if (place > 0) {
            int found = 0;
            for (int n = place; n < LIMIT; n += ticket.clones()) {
                found += isPrime(n) ? 1 : 0;
            }
            Sf.exit(found);
        }
        var counts = Sf.join(ticket);
        long all = counts.stream().mapToLong(count -> count.orElse(0)).sum();
        System.out.printf(
                "sf-example java: %d primes below %d, counted by %d clones%n", all, LIMIT, counts.size());
    }
}
