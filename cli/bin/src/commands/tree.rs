//! `berth images --tree`: under each image the platforms that its index names.

use berth_api::image::{ImageSummary, ManifestSummary};

use super::images::{NONE, names};
use super::ps::short;
use crate::output::{list, units};

const HEADING: [&str; 5] = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];

/// What stands for an image that containers use.
const IN_USE: &str = "U";

/// The table.
pub(crate) fn table(images: &[ImageSummary], whole: bool) -> String {
    let rows = images.iter().flat_map(|image| rows(image, whole)).collect();
    list::table(HEADING.map(str::to_owned).to_vec(), rows)
}

fn rows(image: &ImageSummary, whole: bool) -> Vec<Vec<String>> {
    // Attestations are about images, and are none.
    let platforms: Vec<&ManifestSummary> =
        image.manifests.iter().flatten().filter(|manifest| manifest.image_data.is_some()).collect();
    let id = |id: &str| if whole { id.to_owned() } else { short(id).to_owned() };
    let used = |containers: bool| if containers { IN_USE.to_owned() } else { String::new() };
    let content = match &image.manifests {
        Some(manifests) => units::size(manifests.iter().map(|manifest| manifest.size.content).sum()),
        None => "N/A".to_owned(),
    };
    let taken = image.containers > 0
        || platforms
            .iter()
            .any(|platform| platform.image_data.iter().any(|data| !data.containers.is_empty()));
    let mut rows: Vec<Vec<String>> = names(image, false)
        .into_iter()
        .map(|(repository, tag, _)| {
            let name = match (repository, tag) {
                (NONE, _) => "<untagged>".to_owned(),
                (repository, NONE) => repository.to_owned(),
                (repository, tag) => format!("{repository}:{tag}"),
            };
            vec![name, id(&image.id), units::size(image.size), content.clone(), used(taken)]
        })
        .collect();
    for (at, manifest) in platforms.iter().enumerate() {
        let Some(data) = &manifest.image_data else { continue };
        let branch = if at + 1 == platforms.len() { "└─" } else { "├─" };
        let platform = [&data.platform.os, &data.platform.architecture, &data.platform.variant];
        let platform: Vec<&str> =
            platform.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        rows.push(vec![
            format!("{branch} {}", platform.join("/")),
            id(&manifest.id),
            units::size(manifest.size.total),
            units::size(manifest.size.content),
            used(!data.containers.is_empty()),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_stand_below_their_image() {
        let image: ImageSummary = serde_json::from_str(
            r#"{"Id": "sha256:0123456789abcdef", "RepoTags": ["box:1"], "Size": 3000, "Containers": -1, "Manifests": [
                {"ID": "sha256:aaaaaaaaaaaaaaaa", "Available": true, "Size": {"Total": 2000, "Content": 1000}, "Kind": "image",
                 "ImageData": {"Platform": {"os": "linux", "architecture": "amd64"}, "Containers": ["x"], "Size": {"Unpacked": 1000}}},
                {"ID": "sha256:cccccccccccccccc", "Kind": "attestation", "AttestationData": {"For": "sha256:aaaa"}},
                {"ID": "sha256:bbbbbbbbbbbbbbbb", "Kind": "image", "ImageData": {"Platform":
                 {"os": "linux", "architecture": "arm", "variant": "v7"}, "Containers": [], "Size": {"Unpacked": 0}}}]}"#,
        )
        .expect("an image");
        let shown = table(&[image], false);
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["box:1", "0123456789ab", "3kB", "1kB", IN_USE]);
        assert_eq!(lines[2], ["├─", "linux/amd64", "aaaaaaaaaaaa", "2kB", "1kB", IN_USE]);
        assert_eq!(lines[3], ["└─", "linux/arm/v7", "bbbbbbbbbbbb", "0B", "0B"]);
    }
}
