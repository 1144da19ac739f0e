// SnowFlock's calls for C++17: sf.h with values instead of pointers and exceptions instead of -1.
#ifndef SF_HPP
#define SF_HPP

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "sf.h"

namespace sf {

using ticket = ::sf_ticket;

// A call that failed: the system's reason, or EACCES when the host refused.
class error : public std::system_error {
public:
    error() : std::system_error(errno, std::generic_category(), ::sf_error()) {}
};

namespace detail {
inline std::uint32_t checked(int result) {
    if (result < 0) throw error();
    return static_cast<std::uint32_t>(result);
}
}  // namespace detail

// Asks for the right to `wanted` clones; fewer may be granted.
inline ticket request_ticket(std::uint32_t wanted) {
    ticket granted{};
    detail::checked(::sf_request_ticket(wanted, &granted));
    return granted;
}

// Forks: 0 in the parent, once all clones are there; 1, 2, ... in the clones.
inline std::uint32_t clone(ticket t) { return detail::checked(::sf_clone(t)); }

// A VM that checkpoint_parent() returned in: place 0 and the checkpoint, or a clone's place and how many there are.
struct frozen {
    std::uint32_t place;
    std::uint32_t number;
};

inline frozen checkpoint_parent() {
    std::uint32_t number = 0;
    std::uint32_t place = detail::checked(::sf_checkpoint_parent(&number));
    return {place, number};
}

// Makes clones of a checkpoint; returns their number.
inline std::uint32_t create_clones(ticket t, std::uint32_t checkpoint) {
    return detail::checked(::sf_create_clones(t, checkpoint));
}

// Ends this clone: the whole VM.
[[noreturn]] inline void exit(std::uint32_t status = 0) {
    ::sf_exit(status);
    throw error();
}

// Waits until all clones of a ticket have ended: what each said to exit(), if anything.
inline std::vector<std::optional<std::uint32_t>> join(ticket t) {
    std::vector<::sf_end> ends(t.clones);
    ends.resize(detail::checked(::sf_join(t, ends.data(), ends.size())));
    std::vector<std::optional<std::uint32_t>> statuses;
    for (const auto &end : ends)
        statuses.push_back(end.exited ? std::optional<std::uint32_t>(end.status) : std::nullopt);
    return statuses;
}

// Ends the clones of a ticket, or gives an unused one back. Returns how many ended.
inline std::uint32_t kill(ticket t) { return detail::checked(::sf_kill(t)); }

}  // namespace sf

#endif
