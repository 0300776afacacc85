//! Images.

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use berth_api::{
    Filters, IdResponse,
    image::{
        DistributionInspect, HistoryItem, ImageDeleteItem, ImageInspect, ImageSummary, PruneImagesResponse,
        SearchResult,
    },
    options::{Commit, Import, ListImages, Push, RemoveImage},
    progress::ProgressMessage,
    registry::AuthConfig,
};

use crate::{
    ByteStream, Client, JsonStream, Result, Upload,
    query::{Query, segment},
    request::Call,
};

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Repository, maybe with its registry.
    pub image: String,
    /// Tag or digest; empty pulls all tags.
    pub tag: String,
    /// Platform; empty is the daemon's.
    pub platform: String,
    /// Credentials.
    pub auth: Option<AuthConfig>,
}

fn auth_header(auth: Option<&AuthConfig>) -> String {
    let json = serde_json::to_vec(auth.unwrap_or(&AuthConfig::default()));
    URL_SAFE.encode(json.expect("credentials are texts and serialise"))
}

fn at(image: &str, what: &str) -> String {
    format!("/images/{}{what}", segment(image))
}

/// Images. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Lists images.
    pub async fn image_list(&self, options: &ListImages) -> Result<Vec<ImageSummary>> {
        let query = Query::new()
            .flag("all", options.all)
            .flag("shared-size", options.shared_size)
            .flag("digests", options.digests)
            .flag("manifests", options.manifests)
            .filters(&options.filters);
        self.fetch(Call::get("/images/json", &query)).await
    }

    /// Shows an image.
    pub async fn image_inspect(&self, image: &str) -> Result<ImageInspect> {
        self.fetch(Call::get(at(image, "/json"), &Query::new())).await
    }

    /// The same as the daemon sent it.
    pub async fn image_inspect_raw(&self, image: &str) -> Result<serde_json::Value> {
        self.fetch(Call::get(at(image, "/json"), &Query::new())).await
    }

    /// How an image was made; of a platform's, if one is named (as JSON).
    pub async fn image_history(&self, image: &str, platform: &str) -> Result<Vec<HistoryItem>> {
        self.fetch(Call::get(at(image, "/history"), &Query::new().text("platform", platform))).await
    }

    /// Pulls an image. A failure after the start comes within the stream.
    pub async fn image_pull(&self, options: &PullOptions) -> Result<JsonStream<ProgressMessage>> {
        let query = Query::new()
            .with("fromImage", &options.image)
            .text("tag", &options.tag)
            .text("platform", &options.platform);
        let call = Call::post("/images/create", &query);
        let call = call.header("x-registry-auth", auth_header(options.auth.as_ref()));
        Ok(JsonStream::new(self.send(call).await?))
    }

    /// Makes an image of a root file system's tar archive.
    pub async fn image_import(&self, options: &Import, tar: Upload) -> Result<JsonStream<ProgressMessage>> {
        let query = Query::new()
            .with("fromSrc", &options.source)
            .text("repo", &options.repo)
            .text("tag", &options.tag)
            .text("message", &options.message)
            .text("platform", &options.platform);
        let query = options.changes.iter().fold(query, |query, change| query.with("changes", change));
        let call = Call::post("/images/create", &query).upload("text/plain", tar);
        Ok(JsonStream::new(self.send(call).await?))
    }

    /// Pushes an image; an empty tag pushes all tags.
    pub async fn image_push(
        &self,
        image: &str,
        tag: &str,
        options: &Push,
        auth: Option<&AuthConfig>,
    ) -> Result<JsonStream<ProgressMessage>> {
        let query = Query::new()
            .text("tag", tag)
            .text("platform", &options.platform)
            .text("compression", &options.compression);
        let call = Call::post(at(image, "/push"), &query);
        Ok(JsonStream::new(self.send(call.header("x-registry-auth", auth_header(auth))).await?))
    }

    /// Gives an image a further name.
    pub async fn image_tag(&self, image: &str, repo: &str, tag: &str) -> Result<()> {
        let query = Query::new().with("repo", repo).text("tag", tag);
        self.run(Call::post(at(image, "/tag"), &query)).await.map(drop)
    }

    /// Removes a name, and the image with its last one.
    pub async fn image_remove(&self, image: &str, options: &RemoveImage) -> Result<Vec<ImageDeleteItem>> {
        let query = Query::new().flag("force", options.force).flag("noprune", options.no_prune);
        let query = options.platforms.iter().fold(query, |query, one| query.with("platforms", one));
        self.fetch(Call::delete(at(image, ""), &query)).await
    }

    /// Removes images that nobody uses.
    pub async fn image_prune(&self, filters: &Filters) -> Result<PruneImagesResponse> {
        self.fetch(Call::post("/images/prune", &Query::new().filters(filters))).await
    }

    /// Searches Docker Hub.
    pub async fn image_search(&self, term: &str, limit: i64, filters: &Filters) -> Result<Vec<SearchResult>> {
        let query = Query::new().with("term", term).nonzero("limit", limit).filters(filters);
        self.fetch(Call::get("/images/search", &query)).await
    }

    /// Images as a tar archive; those of these platforms (as JSON), if any are named.
    pub async fn image_save(&self, images: &[String], platforms: &[String]) -> Result<ByteStream> {
        let query = images.iter().fold(Query::new(), |query, image| query.with("names", image));
        let query = platforms.iter().fold(query, |query, one| query.with("platform", one));
        Ok(ByteStream::new(self.send(Call::get("/images/get", &query)).await?))
    }

    /// Loads images from a tar archive; those of these platforms (as JSON), if any are named.
    pub async fn image_load(
        &self,
        quiet: bool,
        platforms: &[String],
        tar: Upload,
    ) -> Result<JsonStream<ProgressMessage>> {
        let query = Query::new().with("quiet", if quiet { "1" } else { "0" });
        let query = platforms.iter().fold(query, |query, one| query.with("platform", one));
        let call = Call::post("/images/load", &query).upload("application/x-tar", tar);
        Ok(JsonStream::new(self.send(call).await?))
    }

    /// Makes an image of a container; answers its id.
    pub async fn commit(&self, options: &Commit) -> Result<String> {
        let query = Query::new()
            .with("container", &options.container)
            .text("repo", &options.repo)
            .text("tag", &options.tag)
            .text("comment", &options.comment)
            .text("author", &options.author)
            .with("pause", if options.pause { "1" } else { "0" });
        let query = options.changes.iter().fold(query, |query, change| query.with("changes", change));
        let config = options.config.clone().unwrap_or_default();
        let created: IdResponse = self.fetch(Call::post("/commit", &query).json(&config)).await?;
        Ok(created.id)
    }

    /// What a registry has under a name.
    pub async fn distribution_inspect(
        &self,
        image: &str,
        auth: Option<&AuthConfig>,
    ) -> Result<DistributionInspect> {
        let call = Call::get(format!("/distribution/{}/json", segment(image)), &Query::new());
        self.fetch(call.header("x-registry-auth", auth_header(auth))).await
    }
}
