// Counts primes on clones, in C++; see ../README.md.
#include <iostream>

#include "sf.hpp"

namespace {
constexpr std::uint32_t clones = 4, limit = 1000;

bool is_prime(std::uint32_t n) {
    for (std::uint32_t d = 2; d * d <= n; d++)
        if (n % d == 0) return false;
    return n >= 2;
}
}  // namespace

int main() try {
    auto ticket = sf::request_ticket(clones);
    if (auto place = sf::clone(ticket)) {
        std::uint32_t found = 0;
        for (auto n = place; n < limit; n += ticket.clones) found += is_prime(n);
        sf::exit(found);
    }
    std::uint32_t all = 0;
    auto counts = sf::join(ticket);
    for (auto count : counts) all += count.value_or(0);
    std::cout << "sf-example cpp: " << all << " primes below " << limit << ", counted by " << counts.size()
              << " clones\n";
} catch (const sf::error &failed) {
    std::cerr << "sf-example cpp: " << failed.what() << '\n';
    return 1;
}
