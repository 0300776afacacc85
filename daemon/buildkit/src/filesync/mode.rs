//! Modes as Go has them (`os.FileMode`): the nine bits as everywhere, all others in places of their own.

use berth_builder::rootdir::Kind;

const PERMISSIONS: u32 = 0o777;
/// Go's bit, and the system's.
const SPECIAL: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const CHAR_DEVICE: u32 = 1 << 21;
/// Something that Go knows no name for.
const IRREGULAR: u32 = 1 << 19;
const KINDS: u32 = DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;

/// What a mode of Go's is: the kind, unless nobody knows it, and the twelve bits.
pub(super) fn from_go(mode: u32) -> (Option<Kind>, u32) {
    let kind = match mode & KINDS {
        0 => Some(Kind::File),
        DIR => Some(Kind::Dir),
        SYMLINK => Some(Kind::Symlink),
        FIFO => Some(Kind::Fifo),
        SOCKET => Some(Kind::Socket),
        DEVICE => Some(Kind::BlockDevice),
        bits if bits == DEVICE | CHAR_DEVICE => Some(Kind::CharDevice),
        _ => None,
    };
    let special = SPECIAL.iter().filter(|(go, _)| mode & go != 0).map(|(_, system)| system);
    (kind, special.fold(mode & PERMISSIONS, |bits, bit| bits | bit))
}

/// The same the other way.
pub(super) fn to_go(kind: Kind, mode: u32) -> u32 {
    let kind = match kind {
        Kind::File => 0,
        Kind::Dir => DIR,
        Kind::Symlink => SYMLINK,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
        Kind::BlockDevice => DEVICE,
        Kind::CharDevice => DEVICE | CHAR_DEVICE,
    };
    let special = SPECIAL.iter().filter(|(_, system)| mode & system != 0).map(|(go, _)| go);
    special.fold(kind | mode & PERMISSIONS, |bits, bit| bits | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_there_and_back() {
        for kind in [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::CharDevice, Kind::BlockDevice] {
            for mode in [0o644, 0o4755, 0o1777, 0o2750] {
                assert_eq!(from_go(to_go(kind, mode)), (Some(kind), mode));
            }
        }
        assert_eq!(from_go(0o755 | 1 << 31), (Some(Kind::Dir), 0o755));
        assert_eq!(from_go(IRREGULAR).0, None);
    }
}
