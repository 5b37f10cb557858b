//! Memory that is used again.

/// Every block below this stays with the process once it is free.
const KEPT: usize = 8 << 20;

/// Tells the allocator not to give large blocks back to the system as soon as they are free.
///
/// A state record of a megabyte is held a few times on its way, for a millisecond each time. glibc
/// asks the system for such a block and returns it, and for every page of it the system has to find
/// memory and clear it, which takes longer than all copying. It learns, though: once it has returned
/// a block, it keeps what is not larger, up to twice its size in all. This one is never touched, so it
/// costs nothing. Other allocators lose nothing by it.
pub fn keep() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT)));
}
