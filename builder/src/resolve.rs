//! The builder's side of the registry: find, or pull, the image that a `FROM` or `--from` names.

use std::future::Future;
use std::pin::Pin;

use berth_oci::{Digest, Platform, Reference};

/// A boxed future, so that the trait can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Finds images. One is made per build, since it carries that build's registry credentials.
pub trait ImageResolver: Send + Sync {
    /// The id of the image that `reference` names for `platform`. Pulls it if the store lacks it, or if `pull`
    /// asks for a fresh look.
    fn resolve<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        pull: bool,
    ) -> BoxFuture<'a, Result<Digest, ResolveError>>;
}

/// An image was not found or could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// What went wrong, ready for the user.
    pub message: String,
}
