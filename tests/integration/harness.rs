//! The harness itself: real parts come up, answer, and go away with what they started.
