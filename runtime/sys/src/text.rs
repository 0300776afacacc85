//! The memory that the program file itself takes.
//!
//! A program that runs once in a long while, such as a runtime that waits for its container, keeps every page of its file
//! that it ever touched (and the fifteen around it) mapped, long after the work of those pages is done.

use nix::errno::Errno;

unsafe extern "C" {
    /// Where the program file begins in memory, by the linker.
    static __executable_start: u8;
    /// Where its instructions end; what the program writes to comes after that.
    static etext: u8;
}

/// Unmaps the instructions and constants of this program; those that are needed again come back from the page cache, one
/// by one, when they are.
///
/// # Errors
/// See `madvise(2)`.
pub fn let_go() -> Result<(), Errno> {
    let start = &raw const __executable_start;
    let length = (&raw const etext).addr().saturating_sub(start.addr());
    // SAFETY: the range is the program's own read-only mapping of its file: no page in it differs from the file (what is
    // relocated lies behind `etext`), so what is read there is the same before and after.
    let ret = unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED) };
    Errno::result(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of files that this process has mapped and resident.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less() {
        // Whatever other tests do meanwhile, they have not touched all of this program.
        let before = resident();
        let_go().unwrap();
        assert!(resident() < before);
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }
}
