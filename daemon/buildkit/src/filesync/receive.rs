//! A client's directory into its mirror.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use berth_builder::rootdir::{Kind, Meta, RootDir};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Mirror, Selection, WINDOW, mode, open};
use crate::progress::Task;
use crate::protocol::fsutil::types::packet::PacketType;
use crate::protocol::fsutil::types::{Packet, Stat};
use crate::session::Session;

/// More names are refused.
const MAX_NAMES: u32 = 1 << 23;
/// A longer path is no path on Linux, and would wait in memory until that is found.
const MAX_PATH: usize = nix::libc::PATH_MAX as usize;
/// Packets that wait for the disk.
const BACKLOG: usize = 64;

/// Why a directory cannot be received.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("the client's path {:?} does not stay below its directory, or is too long", shortened(.0))]
    Path(String),
    #[error("{path}: devices cannot be in a build context")]
    Device { path: String },
    #[error("the client's directory has more than {MAX_NAMES} files")]
    TooMany,
    #[error("the client sent {0}")]
    Protocol(&'static str),
    #[error("the client could not send its files: {0}")]
    Sender(String),
    #[error("the client has ended the transfer")]
    Gone,
    #[error("{what} {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Makes the mirror what the client's directory is. Returns how many bytes came.
pub(crate) async fn receive(
    session: &Session,
    selection: &Selection,
    mirror: Arc<Mirror>,
    task: &Task,
) -> Result<u64, Status> {
    const TELL_EACH: u64 = 1 << 20;
    let (requests, mut packets) = open(session, selection).await?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let work = tokio::task::spawn_blocking(move || {
        let known = known(&mirror.tree)?;
        Receiver::new(&mirror, known, receiver, requests).run()
    });
    let (mut bytes, mut told) = (0, 0);
    while let Some(packet) = packets.message().await? {
        bytes += packet.data.len() as u64;
        if bytes - told >= TELL_EACH {
            told = bytes;
            task.part("transferring context:", bytes, 0, false);
        }
        if sender.send(packet).await.is_err() {
            break;
        }
    }
    drop(sender);
    let done = work.await.map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| Status::unknown(error.to_string()))?;
    task.part("transferring context:", bytes, 0, true);
    Ok(bytes)
}

/// Says what was done, on which path.
fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> ReceiveError + use<> {
    let path = path.to_owned();
    move |source| ReceiveError::Io { what, path: path.clone(), source }
}

/// What the mirror has, by plain path.
fn known(tree: &RootDir) -> Result<HashMap<PathBuf, Meta>, ReceiveError> {
    let mut known = HashMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let failed = at("list", &directory);
        let fd = tree.open_dir(&directory).map_err(&failed)?;
        for name in tree.read_dir(&directory).map_err(&failed)? {
            let stat = nix::sys::stat::fstatat(&fd, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let meta = Meta::of(&stat.map_err(|errno| failed(errno.into()))?);
            let path = directory.join(name);
            if meta.is_dir() {
                open.push(path.clone());
            }
            known.insert(path, meta);
        }
    }
    Ok(known)
}

/// A file that is to come.
struct Coming {
    path: PathBuf,
    mode: u32,
    time: TimeSpec,
    file: Option<File>,
}

/// A second name of a file. It can be made when the file has come.
struct Link {
    path: PathBuf,
    target: PathBuf,
    known: Option<Meta>,
}

/// The receiving end. Lives in a thread of its own.
struct Receiver<'a> {
    mirror: &'a Mirror,
    packets: mpsc::Receiver<Packet>,
    requests: mpsc::Sender<Packet>,
    /// What the mirror had, and the client has not named yet.
    known: HashMap<PathBuf, Meta>,
    named: u32,
    asked: HashMap<u32, Coming>,
    /// Not asked for yet.
    queue: VecDeque<(u32, Coming)>,
    links: Vec<Link>,
    /// Their times are set at the end, when nothing more is put into them.
    directories: Vec<(PathBuf, TimeSpec)>,
}

impl<'a> Receiver<'a> {
    fn new(
        mirror: &'a Mirror,
        known: HashMap<PathBuf, Meta>,
        packets: mpsc::Receiver<Packet>,
        requests: mpsc::Sender<Packet>,
    ) -> Self {
        let (asked, queue) = (HashMap::new(), VecDeque::new());
        let (links, directories) = (Vec::new(), Vec::new());
        Self { mirror, packets, requests, known, named: 0, asked, queue, links, directories }
    }

    fn run(mut self) -> Result<(), ReceiveError> {
        let (mut listed, mut ending) = (false, false);
        while let Some(packet) = self.packets.blocking_recv() {
            match packet.r#type() {
                PacketType::PacketStat => match packet.stat {
                    Some(_) if listed => return Err(ReceiveError::Protocol("a file after the last one")),
                    Some(stat) => self.name(stat)?,
                    None => {
                        listed = true;
                        self.remove_rest()?;
                    }
                },
                PacketType::PacketData => self.data(packet.id, &packet.data)?,
                PacketType::PacketErr => {
                    return Err(ReceiveError::Sender(String::from_utf8_lossy(&packet.data).into_owned()));
                }
                PacketType::PacketReq => return Err(ReceiveError::Protocol("a request")),
                PacketType::PacketFin if ending => return Ok(()),
                PacketType::PacketFin => return Err(ReceiveError::Protocol("an end before its time")),
            }
            if listed && !ending && self.asked.is_empty() && self.queue.is_empty() {
                ending = true;
                self.links.iter().try_for_each(|link| self.link(link))?;
                self.set_times()?;
                self.send(PacketType::PacketFin, 0)?;
            }
        }
        Err(ReceiveError::Gone)
    }

    fn send(&self, kind: PacketType, id: u32) -> Result<(), ReceiveError> {
        let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
        self.requests.blocking_send(packet).map_err(|_| ReceiveError::Gone)
    }

    /// The client names a file.
    fn name(&mut self, stat: Stat) -> Result<(), ReceiveError> {
        let id = self.named;
        self.named += 1;
        if self.named > MAX_NAMES {
            return Err(ReceiveError::TooMany);
        }
        const SECOND: i64 = 1_000_000_000;
        let path = plain(&stat.path)?;
        let known = self.known.remove(&path);
        let (kind, mode) = mode::from_go(stat.mode);
        let time = TimeSpec::new(stat.mod_time.div_euclid(SECOND), stat.mod_time.rem_euclid(SECOND));
        match kind {
            Some(Kind::Dir) => self.directory(path, mode, time, known.as_ref()),
            Some(Kind::Symlink) => self.symlink(&path, Path::new(&stat.linkname), time, known.as_ref()),
            Some(Kind::File) if !stat.linkname.is_empty() => {
                let target = plain(&stat.linkname)?;
                self.links.push(Link { path, target, known });
                Ok(())
            }
            Some(Kind::File) => {
                let same = known.as_ref().is_some_and(|known| {
                    known.kind == Kind::File
                        && i64::try_from(known.size) == Ok(stat.size)
                        && (known.mtime, known.mode) == (time, mode)
                });
                if same {
                    return Ok(());
                }
                if known.as_ref().is_some_and(Meta::is_dir) {
                    self.clear(&path, known.as_ref())?;
                }
                self.ask(id, Coming { path, mode, time, file: None })
            }
            Some(Kind::Fifo) => self.fifo(&path, mode, known.as_ref()),
            // Nobody can do anything with the copy of a socket.
            Some(Kind::Socket) | None => self.clear(&path, known.as_ref()),
            Some(Kind::CharDevice | Kind::BlockDevice) => Err(ReceiveError::Device { path: stat.path }),
        }
    }

    fn directory(
        &mut self,
        path: PathBuf,
        mode: u32,
        time: TimeSpec,
        known: Option<&Meta>,
    ) -> Result<(), ReceiveError> {
        let tree = &self.mirror.tree;
        let is_dir = known.is_some_and(Meta::is_dir);
        if !is_dir {
            self.clear(&path, known)?;
            let (parent, name) = tree.parent(&path).map_err(at("open the directory of", &path))?;
            let made = mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o700));
            made.map_err(io::Error::from).map_err(at("make directory", &path))?;
        }
        if !known.is_some_and(|known| is_dir && known.mode == mode) {
            tree.set_mode(&path, mode).map_err(at("set mode of", &path))?;
        }
        self.directories.push((path, time));
        Ok(())
    }

    fn symlink(
        &self,
        path: &Path,
        target: &Path,
        time: TimeSpec,
        known: Option<&Meta>,
    ) -> Result<(), ReceiveError> {
        let tree = &self.mirror.tree;
        let same = known.is_some_and(|known| known.kind == Kind::Symlink)
            && tree.read_link(path).is_ok_and(|known| Path::new(&known) == target);
        if !same {
            self.clear(path, known)?;
            let (parent, name) = tree.parent(path).map_err(at("open the directory of", path))?;
            let made = symlinkat(target, &parent, name.as_os_str());
            made.map_err(io::Error::from).map_err(at("make symlink", path))?;
        }
        if same && known.is_some_and(|known| known.mtime == time) {
            return Ok(());
        }
        tree.set_mtime(path, time).map_err(at("set time of", path))
    }

    fn fifo(&self, path: &Path, mode: u32, known: Option<&Meta>) -> Result<(), ReceiveError> {
        if known.is_some_and(|known| known.kind == Kind::Fifo && known.mode == mode) {
            return Ok(());
        }
        self.clear(path, known)?;
        let (parent, name) = self.mirror.tree.parent(path).map_err(at("open the directory of", path))?;
        let made = mknodat(&parent, name.as_os_str(), SFlag::S_IFIFO, Mode::from_bits_truncate(mode), 0);
        made.map_err(io::Error::from).map_err(at("make fifo", path))
    }

    /// Gives a file its second name.
    fn link(&self, link: &Link) -> Result<(), ReceiveError> {
        let path = &link.path;
        let failed = at("link", path);
        let tree = &self.mirror.tree;
        let first = tree.meta(&link.target).map_err(&failed)?;
        let same =
            first.zip(link.known.as_ref()).is_some_and(|(first, known)| first.identity == known.identity);
        if same {
            return Ok(());
        }
        self.clear(path, link.known.as_ref())?;
        let (from, old) = tree.parent(&link.target).map_err(&failed)?;
        let (to, new) = tree.parent(path).map_err(&failed)?;
        linkat(&from, old.as_os_str(), &to, new.as_os_str(), AtFlags::empty())
            .map_err(|errno| failed(errno.into()))
    }

    /// Makes room for something of another kind.
    fn clear(&self, path: &Path, known: Option<&Meta>) -> Result<(), ReceiveError> {
        match known {
            None => Ok(()),
            Some(_) => self.mirror.tree.remove_tree(path).map_err(at("remove", path)),
        }
    }

    /// Asks for a file, as soon as not too many others are under way.
    fn ask(&mut self, id: u32, coming: Coming) -> Result<(), ReceiveError> {
        if self.asked.len() >= WINDOW {
            self.queue.push_back((id, coming));
            return Ok(());
        }
        self.send(PacketType::PacketReq, id)?;
        self.asked.insert(id, coming);
        Ok(())
    }

    /// Contents of a file; nothing is its end.
    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), ReceiveError> {
        let incoming = &self.mirror.incoming;
        let name = PathBuf::from(id.to_string());
        let coming =
            self.asked.get_mut(&id).ok_or(ReceiveError::Protocol("contents that nobody asked for"))?;
        let write = at("write", &coming.path);
        let file = match &mut coming.file {
            Some(file) => file,
            None => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW;
                let fd = incoming.open(&name, flags, Mode::from_bits_truncate(0o600));
                coming.file.insert(File::from(fd.map_err(at("create", &coming.path))?))
            }
        };
        if !data.is_empty() {
            return file.write_all(data).map_err(write);
        }
        let finished = fchmod(&*file, Mode::from_bits_truncate(coming.mode))
            .and_then(|()| futimens(&*file, &coming.time, &coming.time));
        finished.map_err(|errno| write(errno.into()))?;
        self.place(id, &name)?;
        if let Some((id, coming)) = self.queue.pop_front() {
            self.ask(id, coming)?;
        }
        Ok(())
    }

    /// Puts a file that has come to its place.
    fn place(&mut self, id: u32, name: &Path) -> Result<(), ReceiveError> {
        let Some(coming) = self.asked.remove(&id) else { return Ok(()) };
        let failed = at("place", &coming.path);
        let (from, old) = self.mirror.incoming.parent(name).map_err(&failed)?;
        let (to, new) = self.mirror.tree.parent(&coming.path).map_err(&failed)?;
        renameat(&from, old.as_os_str(), &to, new.as_os_str()).map_err(|errno| failed(errno.into()))
    }

    /// Removes what the client has not named.
    fn remove_rest(&mut self) -> Result<(), ReceiveError> {
        let mut rest: Vec<PathBuf> = std::mem::take(&mut self.known).into_keys().collect();
        // Directories before what is in them: most goes with them.
        rest.sort();
        for path in rest {
            match self.mirror.tree.remove_tree(&path) {
                Ok(()) => {}
                // The directory that it was in went before it, or another thing took that one's place.
                Err(error)
                    if matches!(
                        error.raw_os_error().map(Errno::from_raw),
                        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
                    ) => {}
                Err(error) => return Err(at("remove", &path)(error)),
            }
        }
        Ok(())
    }

    fn set_times(&mut self) -> Result<(), ReceiveError> {
        for (path, time) in std::mem::take(&mut self.directories) {
            let tree = &self.mirror.tree;
            let set = match tree.meta(&path) {
                Ok(Some(meta)) if meta.mtime == time => Ok(()),
                Ok(_) => tree.set_mtime(&path, time),
                Err(error) => Err(error),
            };
            set.map_err(at("set time of", &path))?;
        }
        Ok(())
    }
}

/// The begin of a path, for messages.
fn shortened(path: &str) -> &str {
    &path[..path.floor_char_boundary(256)]
}

/// A path that stays below the directory, whatever is there.
fn plain(path: &str) -> Result<PathBuf, ReceiveError> {
    let refused = || ReceiveError::Path(path.to_owned());
    let components: Option<PathBuf> = Path::new(path)
        .components()
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let plain = components.filter(|plain| !plain.as_os_str().is_empty() && !path.contains('\0'));
    plain.filter(|plain| plain.as_os_str().len() < MAX_PATH).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn stat(path: &str, mode: u32, size: i64) -> Stat {
        Stat { path: path.into(), mode, size, mod_time: 1_700_000_000_123_456_789, ..Stat::default() }
    }

    fn named(stat: Stat) -> Packet {
        Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() }
    }

    fn data(id: u32, data: &'static [u8]) -> Packet {
        Packet { r#type: PacketType::PacketData.into(), id, data: data.into(), ..Packet::default() }
    }

    fn end(kind: PacketType) -> Packet {
        Packet { r#type: kind.into(), ..Packet::default() }
    }

    /// What the receiver asks for when it gets these packets, and how it ends.
    fn run(mirror: &Mirror, packets: Vec<Packet>) -> (Vec<u32>, Result<(), ReceiveError>) {
        let (sender, receiver) = mpsc::channel(packets.len());
        packets.into_iter().for_each(|packet| sender.try_send(packet).unwrap());
        drop(sender);
        let (requests, mut asked) = mpsc::channel(100);
        let known = known(&mirror.tree).unwrap();
        let result = Receiver::new(mirror, known, receiver, requests).run();
        let mut ids = Vec::new();
        while let Ok(packet) = asked.try_recv() {
            if packet.r#type() == PacketType::PacketReq {
                ids.push(packet.id);
            }
        }
        (ids, result)
    }

    fn mirror() -> (tempfile::TempDir, Mirror) {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Arc::new(crate::filesync::Mirrors::new(dir.path().join("contexts")));
        let mirror = mirrors.claim("x").unwrap();
        (dir, mirror)
    }

    const DIR: u32 = 1 << 31 | 0o755;

    #[test]
    fn only_what_changed_comes_again() {
        let (_dir, mirror) = mirror();
        let tree = mirror.tree_path();
        let listing = |size| {
            vec![
                named(stat("a", DIR, 0)),
                named(stat("a/f", 0o644, 3)),
                named(stat("g", 0o755, size)),
                named(Stat { linkname: "a/f".into(), ..stat("l", 1 << 27 | 0o777, 0) }),
                end(PacketType::PacketStat),
            ]
        };
        let mut first = listing(2);
        first.extend([
            data(1, b"one"),
            data(2, b"tw"),
            data(1, b""),
            data(2, b""),
            end(PacketType::PacketFin),
        ]);
        let (asked, result) = run(&mirror, first);
        result.unwrap();
        assert_eq!(asked, [1, 2]);
        assert_eq!(fs::read(tree.join("l")).unwrap(), b"one");
        let mut second = listing(4);
        second.remove(3);
        second.extend([data(2, b"four"), data(2, b""), end(PacketType::PacketFin)]);
        let (asked, result) = run(&mirror, second);
        result.unwrap();
        assert_eq!(asked, [2], "the other is as it was");
        assert_eq!(fs::read(tree.join("g")).unwrap(), b"four");
        assert!(!tree.join("l").exists(), "the client has it no more");
        let (asked, result) = run(&mirror, vec![end(PacketType::PacketStat), end(PacketType::PacketFin)]);
        result.unwrap();
        assert!(asked.is_empty() && fs::read_dir(&tree).unwrap().next().is_none());
    }

    #[test]
    fn nothing_leads_out() {
        let (dir, mirror) = mirror();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "", ".", &"x/".repeat(MAX_PATH)] {
            let (_, result) = run(&mirror, vec![named(stat(path, 0o644, 1))]);
            assert!(matches!(result, Err(ReceiveError::Path(_))), "{path}: {result:?}");
        }
        let link = Stat { linkname: outside.display().to_string(), ..stat("out", 1 << 27 | 0o777, 0) };
        let packets = vec![
            named(link.clone()),
            named(stat("out/x", 0o644, 1)),
            end(PacketType::PacketStat),
            data(1, b"y"),
            data(1, b""),
        ];
        let (_, result) = run(&mirror, packets);
        assert!(matches!(result, Err(ReceiveError::Io { .. })), "{result:?}");
        let hard = Stat { linkname: "../../outside".into(), ..stat("h", 0o644, 0) };
        let (_, result) = run(&mirror, vec![named(hard)]);
        assert!(matches!(result, Err(ReceiveError::Path(_))), "{result:?}");
        let (_, result) = run(&mirror, vec![named(stat("d", 1 << 26 | 0o600, 0))]);
        assert!(matches!(result, Err(ReceiveError::Device { .. })), "{result:?}");
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }

    #[test]
    fn a_file_takes_the_place_of_a_directory_and_the_other_way() {
        let (_dir, mirror) = mirror();
        let tree = mirror.tree_path();
        let as_dir = vec![
            named(stat("x", DIR, 0)),
            named(stat("x/y", 0o600, 1)),
            end(PacketType::PacketStat),
            data(1, b"1"),
            data(1, b""),
            end(PacketType::PacketFin),
        ];
        let as_file = vec![
            named(stat("x", 0o600, 1)),
            end(PacketType::PacketStat),
            data(0, b"2"),
            data(0, b""),
            end(PacketType::PacketFin),
        ];
        run(&mirror, as_dir.clone()).1.unwrap();
        run(&mirror, as_file).1.unwrap();
        assert_eq!(fs::read(tree.join("x")).unwrap(), b"2");
        run(&mirror, as_dir).1.unwrap();
        assert_eq!(fs::read(tree.join("x/y")).unwrap(), b"1");
    }

    #[test]
    fn a_sender_that_breaks_off_is_noticed() {
        let (_dir, mirror) = mirror();
        let (_, result) = run(&mirror, vec![named(stat("x", 0o600, 1)), end(PacketType::PacketStat)]);
        assert!(matches!(result, Err(ReceiveError::Gone)));
        let (_, result) = run(&mirror, vec![data(7, b"x")]);
        assert!(matches!(result, Err(ReceiveError::Protocol(_))));
    }
}
