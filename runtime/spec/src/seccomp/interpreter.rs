//! A classic BPF interpreter for `struct seccomp_data`: what a filter answers.

use super::Instruction;
use super::observe::SystemCall;

/// `SECCOMP_RET_KILL_THREAD`, also the answer of what is no filter of this crate.
const KILL: u32 = 0;

impl SystemCall {
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// Runs a program; gives its answer and the number of instructions executed.
pub(super) fn run(program: &[Instruction], data: &SystemCall) -> (u32, usize) {
    let (mut at, mut acc, mut steps) = (0, 0u32, 0);
    loop {
        let Some(i) = program.get(at) else { return (KILL, steps) };
        at += 1;
        steps += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            0x20 => match data.word(i.k) {
                Some(word) => acc = word,
                None => return (KILL, steps),
            },
            0x54 => acc &= i.k,
            0x05 => at += i.k as usize,
            0x15 => jump(acc == i.k),
            0x25 => jump(acc > i.k),
            0x35 => jump(acc >= i.k),
            0x06 => return (i.k, steps),
            _ => return (KILL, steps),
        }
    }
}
