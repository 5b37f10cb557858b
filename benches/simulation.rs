//! The simulation of `tests/it/sim.rs` in a binary of its own, which is built fast and runs fast:
//!
//! ```sh
//! TIDEGATE_SIM_SEEDS=1000000 cargo bench --profile fast --bench simulation
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "a simulation stands outside the seams it shakes"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a simulation stops at the first surprise"
)]

#[path = "../tests/it"]
mod it {
    #[allow(
        dead_code,
        unused_imports,
        reason = "what only the tests of the same file need is not called here"
    )]
    pub(crate) mod sim;
}

fn main() {
    it::sim::live_many();
}
