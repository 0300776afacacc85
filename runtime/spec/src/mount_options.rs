//! Names of mount options (config.md, "Linux mount options") and what they stand for.

use crate::step::{FsOption, MountAttributes, Propagation, SuperblockFlags};

/// A mount's option list, sorted by what each option changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes of the mount itself.
    pub attributes: MountAttributes,
    /// Attributes of the whole tree (`rro`).
    pub recursive_attributes: MountAttributes,
    /// Flags of the superblock.
    pub superblock: SuperblockFlags,
    /// Changes of propagation in the order given.
    pub propagation: Vec<Propagation>,
    /// `bind` (`Some(false)`) or `rbind` (`Some(true)`).
    pub bind: Option<bool>,
    /// `remount`
    pub remount: bool,
    /// `tmpcopyup`
    pub copy_up: bool,
    /// `idmap` (`Some(false)`) or `ridmap` (`Some(true)`).
    pub idmap: Option<bool>,
    /// Any flag was named, of the mount (not of the whole tree) or of its superblock.
    pub names_flags: bool,
    /// What the file system itself understands.
    pub data: Vec<FsOption>,
}

impl MountOptions {
    /// Sorts a list of options. Of contradicting ones the last wins, as for mount(8).
    #[must_use]
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        for option in options.iter().flat_map(|option| split(option.as_ref())) {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if self.add_structure(option) {
            return;
        }
        if self.add_superblock(option) || self.add_attribute(option) {
            self.names_flags = true;
            return;
        }
        if let Some(change) = option.strip_prefix('r').and_then(attribute) {
            merge(&mut self.recursive_attributes, change);
            return;
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        self.data.push(FsOption { key: key.to_owned(), value });
    }

    /// What kind of mount it is, and its propagation.
    fn add_structure(&mut self, option: &str) -> bool {
        match option {
            // `acl` was a flag of file systems long gone; runc takes it and nothing follows.
            "" | "defaults" | "acl" | "noacl" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            _ => match propagation(option) {
                Some(propagation) => self.propagation.push(propagation),
                None => return false,
            },
        }
        true
    }

    fn add_superblock(&mut self, option: &str) -> bool {
        let flags = &mut self.superblock;
        match option {
            "sync" => flags.synchronous = true,
            "async" => flags.synchronous = false,
            "dirsync" => flags.dirsync = true,
            "lazytime" => flags.lazytime = true,
            "nolazytime" => flags.lazytime = false,
            "mand" => flags.mandatory_locks = true,
            "nomand" => flags.mandatory_locks = false,
            "iversion" => flags.iversion = true,
            "noiversion" => flags.iversion = false,
            "silent" => flags.silent = true,
            "loud" => flags.silent = false,
            // Both the superblock's and the mount's: the attribute follows below.
            "ro" => {
                flags.readonly = true;
                return false;
            }
            "rw" => {
                flags.readonly = false;
                return false;
            }
            _ => return false,
        }
        true
    }

    fn add_attribute(&mut self, option: &str) -> bool {
        match option {
            // One mode is not wanted, which names no other: as with mount(8), what is there stays.
            "atime" => self.forget_times(MountAttributes::NOATIME),
            "norelatime" => self.forget_times(0),
            "nostrictatime" => self.forget_times(MountAttributes::STRICTATIME),
            _ => match attribute(option) {
                Some(change) => merge(&mut self.attributes, change),
                None => return false,
            },
        }
        true
    }

    fn forget_times(&mut self, mode: u64) {
        let own = &mut self.attributes;
        if own.clear & MountAttributes::ATIME != 0 && own.set & MountAttributes::ATIME == mode {
            own.set &= !MountAttributes::ATIME;
            own.clear &= !MountAttributes::ATIME;
        }
    }

    /// The attributes of a bind mount, and those among them that are to be cleared although nobody has named them: as from
    /// runc, a mount for which flags are named has these and no others, one for which none are named has its source's.
    /// Access times stay as they are unless one of their modes is named (mount(2), `MS_REMOUNT`).
    #[must_use]
    pub fn of_bind(&self) -> (MountAttributes, u64) {
        type A = MountAttributes;
        if !self.names_flags {
            return (self.attributes, 0);
        }
        let named = self.attributes;
        let flags = A::RDONLY | A::NOSUID | A::NODEV | A::NOEXEC | A::NOSYMFOLLOW;
        let implied = flags & !named.set & !named.clear;
        let times = match (named.clear & A::ATIME) | (named.set & A::NODIRATIME) {
            0 => 0,
            _ => A::ATIME | (A::NODIRATIME & !named.set),
        };
        (A { set: named.set, clear: (named.clear & flags) | implied | times }, implied & A::LOCKABLE)
    }
}

/// An option string may itself hold a list (`mode=755,size=1m`), but values keep their commas in quotes.
fn split(option: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    option.split(move |c| {
        if c == '"' {
            quoted = !quoted;
        }
        c == ',' && !quoted
    })
}

/// Parses `shared`, `rslave`, …
#[must_use]
pub fn propagation(name: &str) -> Option<Propagation> {
    let parse = |name| {
        Some(match name {
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "private" => libc::MS_PRIVATE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return None,
        })
    };
    let (flag, recursive) = match parse(name) {
        Some(flag) => (flag, false),
        None => (parse(name.strip_prefix('r')?)?, true),
    };
    Some(Propagation { flag, recursive })
}

fn attribute(name: &str) -> Option<MountAttributes> {
    type A = MountAttributes;
    let set = |set| Some(A { set, clear: 0 });
    let clear = |clear| Some(A { set: 0, clear });
    let atime = |mode| Some(A { set: mode, clear: A::ATIME });
    match name {
        "ro" => set(A::RDONLY),
        "rw" => clear(A::RDONLY),
        "nosuid" => set(A::NOSUID),
        "suid" => clear(A::NOSUID),
        "nodev" => set(A::NODEV),
        "dev" => clear(A::NODEV),
        "noexec" => set(A::NOEXEC),
        "exec" => clear(A::NOEXEC),
        "nodiratime" => set(A::NODIRATIME),
        "diratime" => clear(A::NODIRATIME),
        "nosymfollow" => set(A::NOSYMFOLLOW),
        "symfollow" => clear(A::NOSYMFOLLOW),
        "noatime" => atime(A::NOATIME),
        "strictatime" => atime(A::STRICTATIME),
        // relatime is the kernel's default mode, value 0; to take another mode away leads back to it.
        "relatime" | "atime" | "norelatime" | "nostrictatime" => atime(0),
        _ => None,
    }
}

fn merge(into: &mut MountAttributes, change: MountAttributes) {
    // In a later change of the access time mode, `clear` holds the mask and `set` the value.
    into.set = (into.set & !change.clear) | change.set;
    into.clear = (into.clear & !(change.set & !MountAttributes::ATIME)) | change.clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    type A = MountAttributes;

    #[test]
    fn docker_dev_options() {
        let parsed = MountOptions::parse(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(parsed.attributes, A { set: A::NOSUID | A::STRICTATIME, clear: A::ATIME });
        let data: Vec<_> = parsed.data.iter().map(|o| (o.key.as_str(), o.value.as_deref())).collect();
        assert_eq!(data, [("mode", Some("755")), ("size", Some("65536k"))]);
    }

    #[test]
    fn the_last_of_two_contradicting_options_wins() {
        let parsed = MountOptions::parse(&["ro", "rw", "suid", "nosuid", "noatime", "relatime"]);
        assert_eq!(parsed.attributes, A { set: A::NOSUID, clear: A::RDONLY | A::ATIME });
        assert!(!parsed.superblock.readonly);
    }

    #[test]
    fn an_r_in_front_means_the_whole_tree() {
        let parsed =
            MountOptions::parse(&["rbind", "rro", "rnosuid", "rrelatime", "relatime", "rslave", "ro"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.recursive_attributes, A { set: A::RDONLY | A::NOSUID, clear: A::ATIME });
        assert_eq!(parsed.attributes, A { set: A::RDONLY, clear: A::ATIME });
        assert_eq!(parsed.propagation, [Propagation { flag: libc::MS_SLAVE, recursive: true }]);
        assert!(parsed.data.is_empty());
    }

    #[test]
    fn what_is_no_flag_goes_to_the_file_system() {
        let parsed = MountOptions::parse(&["newinstance", "gid=5,mode=0620", "context=\"a,b\""]);
        assert_eq!(parsed.data.len(), 4);
        assert_eq!(parsed.data[3].value.as_deref(), Some("\"a,b\""));
    }

    #[test]
    fn a_bind_has_what_is_named_and_nothing_else() {
        let of_bind = |options: &[&str]| MountOptions::parse(options).of_bind();
        let rest = |named: u64| (A::LOCKABLE | A::NOSYMFOLLOW) & !named;
        assert_eq!(of_bind(&["rbind", "rprivate", "rro"]), (A::default(), 0));
        let set = A::RDONLY;
        assert_eq!(of_bind(&["bind", "ro"]), (A { set, clear: rest(set) }, A::LOCKABLE & !set));
        let (attributes, implied) = of_bind(&["bind", "dev"]);
        assert_eq!((attributes.clear, implied), (rest(0), A::LOCKABLE & !A::NODEV));
        for times in ["atime", "norelatime", "nostrictatime", "diratime"] {
            assert_eq!(of_bind(&["bind", times]), (A { set: 0, clear: rest(0) }, A::LOCKABLE), "{times}");
        }
        let (attributes, _) = of_bind(&["bind", "nodiratime"]);
        assert_eq!((attributes.set, attributes.clear), (A::NODIRATIME, rest(0) | A::ATIME));
        let (attributes, _) = of_bind(&["bind", "noatime", "atime", "sync"]);
        assert_eq!((attributes.set, attributes.clear), (0, rest(0)));
        let (attributes, _) = of_bind(&["bind", "strictatime"]);
        assert_eq!((attributes.set, attributes.clear), (A::STRICTATIME, rest(0) | A::ATIME | A::NODIRATIME));
    }
}
