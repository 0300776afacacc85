//! Compose: files become a model, the model a plan, and the plan what the engine has.
//!
//! ```text
//! load ─▶ model ─┐
//!                ├─▶ plan ─▶ apply
//!      observe ──┘
//! ```
//!
//! - [`load`] reads files into a tree with places; [`model`] is the typed project made of it.
//! - [`observe`] is what the engine has of the project, [`plan`] the difference, as a value with reasons.
//! - [`apply`] does what a plan says, and the other operations on a project.
//! - [`logs`] is what its containers print.
//!
//! Everything goes through the Engine API client, so that it drives a dockerd as well.

pub mod apply;
mod error;
mod files;
pub mod labels;
pub mod load;
pub mod logs;
pub mod model;
pub mod observe;
mod order;
pub mod plan;
mod request;
pub mod watch;

pub use apply::Engine;
pub use berth_yaml as yaml;
pub use error::{Error, Result};
pub use load::{LoadError, Options, load};
pub use model::{Project, ulimits_of};
