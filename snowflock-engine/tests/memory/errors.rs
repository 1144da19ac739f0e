//! What clones of one checkpoint share, and what they do not.
