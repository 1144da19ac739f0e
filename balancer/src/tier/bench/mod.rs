//! `flurry bench fork`: what forking costs, measured on real VMs through the
//! real data plane.
//!
//! ```text
//!   boot parent -> first 200 through the balancer -> warm
//!   rounds: checkpoint -> [first clone, later siblings: one request waits in the queue for each]
//!   litter: n clones at once, until all answer; their pages; then an idle clone's own memory
//! ```

mod result;
mod run;

pub use result::{Better, Measurement, table};
pub use run::{BenchError, Options, fork};
