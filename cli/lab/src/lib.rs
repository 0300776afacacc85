//! The lab: experiments on how well resources of containers are isolated.
//!
//! ```text
//! EXPERIMENT.yaml ──load──▶ Experiment ──plan──▶ runs ──run──▶ Recording ──measure──▶ Outcome ──report──▶ files
//!                  (places)          (a value)      │ samples                 (statistics, checks)
//!                                                   └─ cgroup files, up to 10 times a second
//! ```
//!
//! - [`experiment`] is what a file says, checked before anything is started; a mistake is told with its place.
//! - [`plan`](mod@plan) says in which order what is run: engines and settings take turns, so that a machine that
//!   drifts drifts for all of them.
//! - [`run`](mod@run) drives engines through the Engine API client, so that a dockerd is measured the same way.
//! - [`sample`] reads the kernel's own files beside the engine: what is measured does not depend on who is measured.
//! - [`compare`] makes tables of measurements that others took.
//! - [`observe`] watches containers that run anyway.
//! - [`record`], [`measure`], [`statistics`] and [`report`] make the rest: one recording, and everything derived from it.

pub mod compare;
pub mod error;
pub mod experiment;
pub mod facts;
pub mod measure;
pub mod observe;
pub mod plan;
pub mod plot;
pub mod record;
pub mod report;
pub mod run;
pub mod sample;
pub mod statistics;
pub mod tool;

pub use error::{Error, Result};
pub use experiment::{Experiment, Overrides, load};
