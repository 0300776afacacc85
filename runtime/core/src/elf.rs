//! What an ELF file says about what it needs (elf(5)). For explanations only: nothing here decides anything.

use std::fs::File;
use std::io::{Read, Seek};

use elf::ElfStream;
use elf::abi;
use elf::endian::AnyEndian;

/// The longest path or name that is believed.
const MAX_NAME: u64 = 4096;

/// An ELF program or library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// `e_machine`: [`machine_name`] has its name.
    pub machine: u16,
    /// `PT_INTERP`: the dynamic loader; none for a static program.
    pub loader: Option<String>,
    /// `DT_NEEDED`: names of libraries, in order.
    pub needed: Vec<String>,
    /// `DT_RUNPATH` or `DT_RPATH`: where it wants them looked for.
    pub search: Vec<String>,
}

/// Reads what can be read; `None` if it is no ELF file, or a damaged one.
#[must_use]
pub fn read(file: File) -> Option<Elf> {
    let mut stream = ElfStream::<AnyEndian, File>::open_stream(file).ok()?;
    let machine = stream.ehdr.e_machine;
    let loader = stream.segments().iter().find(|s| s.p_type == abi::PT_INTERP).copied();
    let loader = loader.filter(|segment| segment.p_filesz <= MAX_NAME).and_then(|segment| {
        let bytes = stream.segment_data(&segment).ok()?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned())
    });
    let (needed, search) = dynamic(&mut stream).unwrap_or_default();
    Some(Elf { machine, loader, needed, search })
}

fn dynamic<S: Read + Seek>(stream: &mut ElfStream<AnyEndian, S>) -> Option<(Vec<String>, Vec<String>)> {
    let entries: Vec<(i64, u64)> = stream.dynamic().ok()??.iter().map(|e| (e.d_tag, e.d_val())).collect();
    let (_, names) = stream.dynamic_symbol_table().ok()??;
    let of = |tags: &[i64]| -> Vec<String> {
        let offsets = entries.iter().filter(|(tag, _)| tags.contains(tag));
        let offsets = offsets.filter_map(|(_, offset)| usize::try_from(*offset).ok());
        offsets.filter_map(|offset| names.get(offset).ok()).map(str::to_owned).collect()
    };
    let search = of(&[abi::DT_RUNPATH, abi::DT_RPATH]);
    let search = search.iter().flat_map(|list| list.split(':')).map(str::to_owned).collect();
    Some((of(&[abi::DT_NEEDED]), search))
}

/// The machine this runtime was built for.
pub const NATIVE: u16 = if cfg!(target_arch = "aarch64") { abi::EM_AARCH64 } else { abi::EM_X86_64 };

/// As uname(1) and image platforms call it.
#[must_use]
pub fn machine_name(machine: u16) -> String {
    match machine {
        abi::EM_386 => "i386".into(),
        abi::EM_X86_64 => "x86_64".into(),
        abi::EM_ARM => "arm".into(),
        abi::EM_AARCH64 => "aarch64".into(),
        abi::EM_RISCV => "riscv".into(),
        abi::EM_PPC64 => "ppc64".into(),
        abi::EM_S390 => "s390x".into(),
        abi::EM_MIPS => "mips".into(),
        abi::EM_LOONGARCH => "loongarch".into(),
        other => format!("machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_a_c_library() {
        let elf = read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(elf.machine, NATIVE);
        assert!(elf.loader.is_some_and(|loader| loader.contains("ld-")));
        assert!(elf.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", elf.needed);
        assert_eq!(read(File::open("/etc/passwd").unwrap()), None);
    }
}
