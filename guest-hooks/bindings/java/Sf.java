import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;

/**
 * SnowFlock's calls from inside a guest: VM fork with the habits of fork(2). One process of the guest asks,
 * the whole guest is forked, and the call returns in the parent and in every clone, in the same process and
 * thread: with 0 in the parent, with 1, 2, ... in the clones.
 *
 * <p>Plain Java 17; each call blocks its own thread only.
 */
public final class Sf {
    /** The right to so many clones, to be used once. */
    public record Ticket(long id, int clones) {}

    /** A VM that {@link #checkpointParent} returned in: 0 and the checkpoint, or a place and how many clones. */
    public record Frozen(int place, long number) {}

    /** The host refused a call, and said why. */
    public static final class Refused extends IOException {
        private static final long serialVersionUID = 1;

        Refused(String why) {
            super(why);
        }
    }

    private static final String SOCKET = "/run/flurry/api";

    private Sf() {}

    /** Asks for the right to {@code wanted} clones; fewer may be granted. */
    public static Ticket requestTicket(int wanted) throws IOException {
        String[] words = ask("ticket " + wanted);
        return new Ticket(number(words, 0), (int) number(words, 1));
    }

    /** Forks: 0 in the parent, once all clones are there; 1, 2, ... in the clones. */
    public static int fork(Ticket ticket) throws IOException {
        return (int) number(ask("clone " + ticket.id()), 0);
    }

    /** Freezes the parent, for {@link #createClones}; returns in the clones as well. */
    public static Frozen checkpointParent() throws IOException {
        String[] words = ask("checkpoint");
        return new Frozen((int) number(words, 0), number(words, 1));
    }

    /** Makes clones of a checkpoint; returns their number. */
    public static int createClones(Ticket ticket, long checkpoint) throws IOException {
        return (int) number(ask("create " + ticket.id() + " " + checkpoint), 0);
    }

    /** Ends this clone: the whole VM. Returns only by an exception. */
    public static void exit(long status) throws IOException {
        ask("exit " + status);
        throw new Refused("the host lets this VM go on");
    }

    /** Waits until all clones of a ticket have ended: what each said to {@link #exit}, if anything. */
    public static List<OptionalLong> join(Ticket ticket) throws IOException {
        List<OptionalLong> statuses = new ArrayList<>();
        for (String end : ask("join " + ticket.id())) {
            String status = end.substring(end.indexOf('=') + 1);
            statuses.add(status.equals("-") ? OptionalLong.empty() : OptionalLong.of(Long.parseLong(status)));
        }
        return statuses;
    }

    /** Ends the clones of a ticket, or gives an unused one back. Returns how many ended. */
    public static int kill(Ticket ticket) throws IOException {
        return (int) number(ask("kill " + ticket.id()), 0);
    }

    private static long number(String[] words, int place) throws IOException {
        if (place >= words.length) {
            throw new IOException("the agent's answer lacks a number");
        }
        return Long.parseLong(words[place]);
    }

    private static String[] ask(String line) throws IOException {
        String path = System.getenv().getOrDefault("SF_SOCKET", SOCKET);
        try (SocketChannel agent = SocketChannel.open(StandardProtocolFamily.UNIX)) {
            agent.connect(UnixDomainSocketAddress.of(path));
            ByteBuffer asked = ByteBuffer.wrap((line + "\n").getBytes(StandardCharsets.US_ASCII));
            while (asked.hasRemaining()) {
                agent.write(asked);
            }
            // In a clone this is where it wakes up.
            ByteBuffer answer = ByteBuffer.allocate(4096);
            while (answer.position() == 0 || answer.get(answer.position() - 1) != '\n') {
                if (agent.read(answer) <= 0) {
                    throw new IOException("the agent has hung up");
                }
            }
            String text = new String(answer.array(), 0, answer.position(), StandardCharsets.UTF_8).trim();
            if (!text.equals("ok") && !text.startsWith("ok ")) {
                throw new Refused(text.replaceFirst("^error ", ""));
            }
            String words = text.substring(2).trim();
            return words.isEmpty() ? new String[0] : words.split(" ");
        }
    }
}
