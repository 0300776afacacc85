//! `linux.resources` → an ordered list of writes. Pure.

use std::path::{Component, Path, PathBuf};

use berth_sys::bpf::BpfInsn;
use oci_spec::runtime::{LinuxHugepageLimit, LinuxRdma, LinuxResources};

use crate::{CgroupError, Layout, device, v1, v2};

/// What has to be written where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Directories of the cgroup, one for each hierarchy that takes part; on a hybrid host cgroup2's is the last.
    pub directories: Vec<PathBuf>,
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// The device program of cgroup2; `None` leaves devices alone.
    pub device_program: Option<Vec<BpfInsn>>,
}

/// One write to a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Index of its directory in [`Plan::directories`].
    pub directory: usize,
    /// Name of the file.
    pub file: String,
    /// The text.
    pub value: String,
    /// A file that does not exist is logged, not fatal.
    pub optional: bool,
}

impl Plan {
    /// Plans limits for the cgroup `path` (below each hierarchy's root).
    ///
    /// # Errors
    /// A value that no kernel takes, or a limit whose controller the host does not have.
    pub fn new(layout: &Layout, path: &Path, resources: &LinuxResources) -> Result<Self, CgroupError> {
        let directories = directories(layout, path);
        match layout {
            Layout::V2 { .. } => Ok(Self {
                directories,
                writes: v2::writes(resources)?,
                device_program: resources.devices().as_deref().map(device::program),
            }),
            Layout::V1 { .. } | Layout::Hybrid { .. } => {
                Ok(Self { directories, writes: v1::writes(layout, resources)?, device_program: None })
            }
        }
    }
}

/// The cgroup's directory in each hierarchy.
pub(crate) fn directories(layout: &Layout, path: &Path) -> Vec<PathBuf> {
    let relative = relative(path);
    match layout {
        Layout::V2 { mount } => vec![mount.join(relative)],
        // The hierarchy without controllers comes last: the limits' directories are counted from the first.
        Layout::V1 { .. } | Layout::Hybrid { .. } => {
            let mounts = layout.taking_part().map(|hierarchy| hierarchy.mount.as_path());
            mounts.chain(layout.unified()).map(|mount| mount.join(&relative)).collect()
        }
    }
}

/// The path below a hierarchy's root; `..` never leads above it.
pub(crate) fn relative(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Collects writes for one directory.
pub(crate) struct Writes<'a> {
    pub(crate) list: &'a mut Vec<Write>,
    pub(crate) directory: usize,
}

impl Writes<'_> {
    pub(crate) fn push(&mut self, file: &str, value: impl ToString) {
        self.add(file, value, false);
    }

    pub(crate) fn optional(&mut self, file: &str, value: impl ToString) {
        self.add(file, value, true);
    }

    fn add(&mut self, file: &str, value: impl ToString, optional: bool) {
        let (directory, file, value) = (self.directory, file.to_owned(), value.to_string());
        self.list.push(Write { directory, file, value, optional });
    }
}

/// `-1` is unlimited in config.json.
pub(crate) fn limit(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// No limit below 1 lets the container's own process run: 0 is the strictest that does (config-linux.md, "pids").
pub(crate) fn pids_max(value: i64) -> i64 {
    if value == 0 { 1 } else { value }
}

/// Throttles as (major:minor, rate).
pub(crate) fn throttles(
    list: &Option<Vec<oci_spec::runtime::LinuxThrottleDevice>>,
) -> impl Iterator<Item = (String, u64)> {
    list.iter().flatten().map(|device| (format!("{}:{}", device.major(), device.minor()), device.rate()))
}

/// The size of huge pages as the kernel has it in file names.
pub(crate) fn page_size(at: usize, huge: &LinuxHugepageLimit) -> Result<&str, CgroupError> {
    let size = huge.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CgroupError::invalid(
            format!("linux.resources.hugepageLimits[{at}].pageSize"),
            format!("{size:?} is no page size such as 2MB"),
        ));
    }
    Ok(size)
}

/// A line of `rdma.max`.
pub(crate) fn rdma_max(device: &str, rdma: &LinuxRdma) -> String {
    let part = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
    format!("{device} hca_handle={} hca_object={}", part(rdma.hca_handles()), part(rdma.hca_objects()))
}
