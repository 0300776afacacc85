//! Compose: files become a model, the model a plan, and the plan what the engine has.
//!
//! - [`load`] reads files into a tree with places, [`model`] is the typed project made of it.
//!
//! Everything goes through the Engine API client, so that it drives a dockerd as well.

pub mod load;
pub mod model;
pub mod yaml;

pub use load::{LoadError, Options, load};
pub use model::Project;
