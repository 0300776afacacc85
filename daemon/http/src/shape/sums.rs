//! The sums of `system df` since 1.52, computed from its lists. Clients that know nothing of them find the lists beside.

use berth_api::system::DiskUsage;
use serde_json::{Map, Value, json};

/// One kind's sums.
#[derive(Default)]
struct Sums {
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
}

impl Sums {
    fn count(&mut self, active: bool, size: i64) {
        self.total += 1;
        self.size += size;
        match active {
            true => self.active += 1,
            false => self.reclaimable += size,
        }
    }

    /// Zero is left out, as docker does; so is the list, unless it was asked for.
    fn into_value(self, items: Option<Value>) -> Value {
        let numbers = [
            ("ActiveCount", json!(self.active)),
            ("TotalCount", json!(self.total)),
            ("Reclaimable", json!(self.reclaimable)),
            ("TotalSize", json!(self.size)),
        ];
        let items = items.map(|items| ("Items", items));
        let fields = numbers.into_iter().filter(|(_, value)| *value != 0).chain(items);
        fields.map(|(field, value)| (field.to_owned(), value)).collect::<Map<_, _>>().into()
    }
}

/// Puts the sums of each kind that was asked for beside its list, or the list into them.
pub(super) fn add(answer: &mut Map<String, Value>, usage: &DiskUsage, verbose: bool) {
    let mut kinds = Vec::new();
    if let Some(images) = &usage.images {
        let mut sums = Sums::default();
        images.iter().for_each(|image| sums.count(image.containers > 0, 0));
        // Layers that images share count once.
        sums.size = usage.layers_size;
        let used = images.iter().filter(|image| image.containers > 0);
        sums.reclaimable = (usage.layers_size - used.map(|image| image.size).sum::<i64>()).max(0);
        kinds.push(("Images", "ImageUsage", sums));
    }
    if let Some(containers) = &usage.containers {
        let mut sums = Sums::default();
        for container in containers {
            let active = ["running", "paused", "restarting"].contains(&container.state.as_str());
            sums.count(active, container.size_rw);
        }
        kinds.push(("Containers", "ContainerUsage", sums));
    }
    if let Some(volumes) = &usage.volumes {
        let mut sums = Sums::default();
        for usage in volumes.iter().map(|volume| volume.usage_data.clone().unwrap_or_default()) {
            sums.count(usage.ref_count > 0, usage.size.max(0));
        }
        kinds.push(("Volumes", "VolumeUsage", sums));
    }
    if let Some(records) = &usage.build_cache {
        let mut sums = Sums::default();
        records.iter().for_each(|record| sums.count(record.in_use, record.size));
        kinds.push(("BuildCache", "BuildCacheUsage", sums));
    }
    for (list, name, sums) in kinds {
        let items = if verbose { answer.shift_remove(list) } else { answer.get(list).cloned() };
        answer.insert(name.to_owned(), sums.into_value(items));
    }
    if verbose {
        answer.shift_remove("LayersSize");
    }
}

#[cfg(test)]
mod tests {
    use berth_api::image::ImageSummary;

    use super::*;

    #[test]
    fn a_kind_has_its_sums_and_only_for_verbose_clients_its_list() {
        let image = |containers, size| ImageSummary { containers, size, ..ImageSummary::default() };
        let images = Some(vec![image(1, 40), image(0, 60)]);
        let usage = DiskUsage { layers_size: 90, images, ..DiskUsage::default() };
        let answer = || json!({"LayersSize": 90, "Images": [1, 2]}).as_object().unwrap().clone();
        let (mut plain, mut verbose) = (answer(), answer());
        add(&mut plain, &usage, false);
        assert_eq!(plain["Images"], plain["ImageUsage"]["Items"]);
        add(&mut verbose, &usage, true);
        let sums =
            json!({"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 50, "TotalSize": 90, "Items": [1, 2]});
        assert_eq!(Value::from(verbose), json!({ "ImageUsage": sums }));
    }
}
