//! `berth system check`: the store proves itself; what it cannot mend from its own blobs is fetched again.

use std::sync::Arc;

use berth_api::options::CheckStore;
use berth_api::system::{StoreCheck, StoreProblem};
use berth_oci::Platform;
use berth_registry::Credentials;
use berth_store::{CheckOptions, CheckReport, Image};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Proves every reference, blob and layer of the image store, and with `repair` mends it.
    ///
    /// # Errors
    /// When the store cannot be read. That something cannot be mended is no error but in the answer.
    pub async fn check_store(self: &Arc<Self>, options: CheckStore) -> Result<StoreCheck> {
        let engine = Arc::clone(self);
        self.detached(async move {
            let CheckStore { repair, quick } = options;
            let first = engine.prove_store(CheckOptions { deep: !quick, repair }).await?;
            if !repair || first.problems.iter().all(|problem| problem.repaired) {
                return Ok(answer(first, None));
            }
            engine.fetch_what_is_lost().await?;
            let left = engine.prove_store(CheckOptions { deep: false, repair }).await?;
            Ok(answer(first, Some(&left)))
        })
        .await
    }

    async fn prove_store(self: &Arc<Self>, options: CheckOptions) -> Result<CheckReport> {
        self.blocking(move |engine| Ok(engine.store.check(options)?)).await
    }

    /// Fetches from where they came the images that are not whole. Credentials are the clients'; the engine has none.
    async fn fetch_what_is_lost(self: &Arc<Self>) -> Result<()> {
        let broken: Vec<(Image, Platform)> = self
            .blocking(|engine| {
                let images = engine.store.images();
                let mut broken = Vec::new();
                for image in images.list(true)? {
                    if !images.is_whole(&image.id)? {
                        let platform =
                            images.config_of(&image.id).map_or_else(|_| Platform::host(), |c| c.platform());
                        broken.push((image, platform));
                    }
                }
                Ok(broken)
            })
            .await?;
        for (image, platform) in broken {
            for source in &image.repo_digests {
                match self.registry.fetch_again(source, &platform, &Credentials::Anonymous).await {
                    Ok(_) => break,
                    Err(error) => tracing::warn!(image = %image.id, %source, %error, "cannot fetch again"),
                }
            }
        }
        Ok(())
    }
}

/// With a second report, what is not in it any more was mended in between.
fn answer(report: CheckReport, left: Option<&CheckReport>) -> StoreCheck {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let gone = |what: &str| {
        left.is_some_and(|left| left.problems.iter().all(|problem| problem.repaired || problem.what != what))
    };
    let problems = report.problems.into_iter().map(|problem| StoreProblem {
        repaired: problem.repaired || gone(&problem.what),
        what: problem.what,
    });
    StoreCheck {
        problems: problems.collect(),
        images: number(report.images),
        layers: number(report.layers),
        blobs: number(report.blobs),
    }
}
