//! The options of the local driver: `type`, `o`, `device`, as in mount(8).
//!
//! A volume that is a directory of the host (`o=bind`) is used where it is. Any other file system is mounted on the
//! volume's directory while a container uses it: containers that share the volume share the mount, and it is found
//! where `volume inspect` says.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use berth_spec::FsOption;
use berth_spec::mount_options::MountOptions;
use berth_sys::mountfd::{FsContext, move_mount};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::{EngineError, IoContext as _, Result};
use crate::fsutil;

/// What an option needs beside it.
const NEEDS: [(&str, &[&str]); 3] =
    [("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];

/// File systems whose option `addr` is a host's name.
const NETWORK: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];

/// Options that name a version of NFS, or something that only one version has (nfs(5)).
const NFS_VERSION: [&str; 7] = ["vers", "nfsvers", "v2", "v3", "v4", "minorversion", "mountport"];

/// What a volume's options make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Local {
    /// A directory of its own.
    Plain,
    /// A directory or file of the host.
    Bind(String),
    /// A file system.
    Mount(FileSystem),
}

/// A file system to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    kind: String,
    device: String,
    options: Vec<String>,
}

/// Reads a volume's options.
pub(super) fn read(name: &str, options: Option<&BTreeMap<String, String>>) -> Result<Local> {
    let Some(options) = options.filter(|options| !options.is_empty()) else { return Ok(Local::Plain) };
    let refuse = |reason: String| Err(EngineError::invalid(format!("create {name}: {reason}")));
    let in_memory = options.get("type").is_some_and(|kind| kind == "tmpfs");
    if options.contains_key("size") && !in_memory {
        return Err(EngineError::invalid(format!(
            "create {name}: the size of a volume on a disk cannot be limited here (quota size requested but no quota \
             support); a volume in memory can: type=tmpfs, device=tmpfs, size=…"
        )));
    }
    if let Some(unknown) = options.keys().find(|key| !["type", "o", "device", "size"].contains(&key.as_str()))
    {
        return refuse(format!("invalid option: {unknown:?}"));
    }
    for (option, needed) in NEEDS {
        if let Some(missing) = needed.iter().find(|needed| !options.contains_key(**needed))
            && options.contains_key(option)
        {
            return refuse(format!("missing required option: {missing:?}"));
        }
    }
    let value = |key: &str| options.get(key).cloned().unwrap_or_default();
    let mut words: Vec<String> = value("o").split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    if let Some(size) = options.get("size") {
        words.retain(|word| !word.starts_with("size="));
        words.push(format!("size={size}"));
    }
    let device = value("device");
    let parsed = MountOptions::parse(&words);
    if parsed.bind.is_some() {
        return match device.starts_with('/') {
            true => Ok(Local::Bind(device)),
            false => refuse(format!("device {device:?} is no absolute path")),
        };
    }
    let kind = value("type");
    if kind.is_empty() || kind == "none" {
        return refuse("type none needs o=bind".to_owned());
    }
    Ok(Local::Mount(FileSystem { kind, device, options: words }))
}

/// What the kernel said of a mount.
struct Refused {
    what: &'static str,
    errno: Errno,
    log: String,
}

impl Refused {
    fn new(what: &'static str, errno: Errno, log: String) -> Self {
        Self { what, errno, log }
    }
}

impl FileSystem {
    /// Mounts it on the directory, unless it is there already.
    pub(super) fn mount(&self, volume: &str, target: &Path) -> Result<()> {
        if is_mounted(target)? {
            return Ok(());
        }
        let place = fsutil::open_host_dir(target).during("open", target)?;
        let options = MountOptions::parse(&self.options);
        let data = self.resolved(&options.data)?;
        let mount = self.create(&options, &data).or_else(|refused| match self.newer(&data, refused.errno) {
            // What was asked for is what failed, whatever else was tried.
            Some(newer) => self.create(&options, &newer).map_err(|_| refused),
            None => Err(refused),
        });
        let attached = mount.and_then(|mount| {
            move_mount(&mount, place.as_fd()).map_err(|errno| Refused::new("attach", errno, String::new()))
        });
        attached.map_err(|Refused { what, errno, log }| {
            let log = if log.is_empty() { log } else { format!(" ({log})") };
            EngineError::internal(format!(
                "error while mounting volume '{volume}': failed to mount local volume: {what} of type {}, device {}, \
                 options {:?}: {errno}{log}",
                self.kind,
                self.device,
                self.options.join(",")
            ))
        })
    }

    /// A mount that is nowhere yet.
    fn create(&self, options: &MountOptions, data: &[FsOption]) -> Result<OwnedFd, Refused> {
        let fs = FsContext::open(&self.kind)
            .map_err(|errno| Refused::new("the kernel does not know file systems", errno, String::new()))?;
        let set = |result: Result<(), Errno>| result.map_err(|errno| Refused::new("set up", errno, fs.log()));
        set(fs.set_string("source", &self.device))?;
        if options.superblock.readonly {
            set(fs.set_flag("ro"))?;
        }
        if options.superblock.synchronous {
            set(fs.set_flag("sync"))?;
        }
        for option in data {
            set(match &option.value {
                Some(value) => fs.set_string(&option.key, value),
                None => fs.set_flag(&option.key),
            })?;
        }
        set(fs.create())?;
        fs.mount(options.attributes.set).map_err(|errno| Refused::new("mount", errno, fs.log()))
    }

    /// NFS whose version nobody named, in a version that the kernel does not begin with (it begins with 3, some with 2,
    /// and leaves trying others to mount.nfs(8)): a server that speaks 4 alone refuses those.
    fn newer(&self, data: &[FsOption], errno: Errno) -> Option<Vec<FsOption>> {
        let refused = matches!(errno, Errno::EPROTONOSUPPORT | Errno::EPFNOSUPPORT | Errno::ECONNREFUSED);
        let named = data.iter().any(|option| NFS_VERSION.contains(&option.key.as_str()));
        (self.kind == "nfs" && refused && !named).then(|| {
            let newest = FsOption { key: "vers".to_owned(), value: Some("4.2".to_owned()) };
            data.iter().cloned().chain([newest]).collect()
        })
    }

    /// The file system's own options; the name of a server becomes its address, which is all that the kernel knows.
    fn resolved(&self, options: &[FsOption]) -> Result<Vec<FsOption>> {
        let mut options = options.to_vec();
        if !NETWORK.contains(&self.kind.as_str()) {
            return Ok(options);
        }
        for option in options.iter_mut().filter(|option| option.key == "addr") {
            let host = option.value.clone().unwrap_or_default();
            let found = (host.as_str(), 0).to_socket_addrs();
            let address = found.ok().and_then(|mut found| found.next()).ok_or_else(|| {
                EngineError::invalid(format!("cannot resolve addr={host} of a volume of type {}", self.kind))
            })?;
            option.value = Some(address.ip().to_string());
        }
        Ok(options)
    }
}

/// Whether something is mounted on this directory of ours.
pub(super) fn is_mounted(target: &Path) -> Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").during("read", "/proc/self/mountinfo")?;
    let target = target.canonicalize().during("find", target)?;
    let escaped = target.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    Ok(table.lines().any(|line| line.split(' ').nth(4) == Some(escaped.as_str())))
}

/// Takes the mount away; processes that still have files open there keep them.
pub(super) fn unmount(target: &Path) -> Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(EngineError::io("unmount", target, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(pairs: &[(&str, &str)]) -> Result<Local> {
        let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read("v", Some(&options))
    }

    #[test]
    fn options_are_those_of_mount() {
        assert_eq!(read("v", None).unwrap(), Local::Plain);
        let bind = local(&[("type", "none"), ("o", "rbind,rw"), ("device", "/srv")]).unwrap();
        assert_eq!(bind, Local::Bind("/srv".into()));
        let tmpfs = local(&[("type", "tmpfs"), ("o", "size=1m,uid=5"), ("device", "tmpfs")]).unwrap();
        assert!(matches!(tmpfs, Local::Mount(fs) if fs.options == ["size=1m", "uid=5"]));
        let sized = local(&[("type", "tmpfs"), ("o", "uid=5"), ("device", "tmpfs"), ("size", "2m")]).unwrap();
        assert!(matches!(sized, Local::Mount(fs) if fs.options == ["uid=5", "size=2m"]));
        let message = |pairs| local(pairs).unwrap_err().message().to_owned();
        assert!(message(&[("size", "1m")]).contains("no quota support"));
        assert_eq!(message(&[("bogus", "1")]), "create v: invalid option: \"bogus\"");
        assert_eq!(message(&[("type", "nfs")]), "create v: missing required option: \"device\"");
        assert_eq!(message(&[("device", "/x")]), "create v: missing required option: \"type\"");
        assert!(message(&[("type", "none"), ("device", "/x")]).contains("o=bind"));
        assert!(message(&[("type", "none"), ("o", "bind"), ("device", "x")]).contains("absolute"));
    }

    #[test]
    fn nfs_of_no_version_is_tried_in_the_newest() {
        let newer = |kind: &str, o: &str, errno| {
            let Local::Mount(fs) = local(&[("type", kind), ("o", o), ("device", ":/x")]).unwrap() else {
                panic!("no file system")
            };
            fs.newer(&MountOptions::parse(&fs.options).data, errno)
        };
        let tried = newer("nfs", "addr=10.0.0.1,nolock,rw", Errno::EPROTONOSUPPORT).unwrap();
        let last = tried.last().map(|option| (option.key.as_str(), option.value.as_deref()));
        assert_eq!((tried.len(), last), (3, Some(("vers", Some("4.2")))));
        assert!(newer("nfs", "addr=10.0.0.1,vers=3", Errno::EPROTONOSUPPORT).is_none());
        assert!(newer("nfs", "addr=10.0.0.1", Errno::EACCES).is_none());
        assert!(newer("cifs", "addr=10.0.0.1", Errno::ECONNREFUSED).is_none());
    }

    #[test]
    fn a_tmpfs_is_mounted_once_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let Local::Mount(fs) =
            local(&[("type", "tmpfs"), ("o", "size=64k,mode=700"), ("device", "tmpfs")]).unwrap()
        else {
            panic!("no file system")
        };
        fs.mount("v", dir.path()).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        fs.mount("v", dir.path()).unwrap();
        assert!(dir.path().join("file").exists(), "it was mounted twice");
        assert!(is_mounted(dir.path()).unwrap());
        assert!(std::fs::write(dir.path().join("large"), vec![0; 128 << 10]).is_err(), "size was ignored");
        unmount(dir.path()).unwrap();
        assert!(!is_mounted(dir.path()).unwrap() && !dir.path().join("file").exists());
        unmount(dir.path()).unwrap();
    }

    #[test]
    fn what_the_kernel_says_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |pairs| match local(pairs).unwrap() {
            Local::Mount(fs) => fs.mount("v", dir.path()).unwrap_err().message().to_owned(),
            other => panic!("{other:?}"),
        };
        let text = mount(&[("type", "tmpfs"), ("o", "size=lots"), ("device", "tmpfs")]);
        assert!(text.contains("volume 'v'") && text.contains("size=lots"), "{text}");
        let text = mount(&[("type", "nosuchfs"), ("device", "x")]);
        assert!(text.contains("does not know") && text.contains("nosuchfs"), "{text}");
        let text = mount(&[("type", "ext4"), ("device", "/nosuch/device")]);
        assert!(text.contains("/nosuch/device"), "{text}");
    }
}
