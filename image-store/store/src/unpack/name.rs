//! Names of members.

use crate::unpack::EntryProblem;

/// What a member's name means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The root of the layer.
    Root,
    /// `name` in the directory of these components.
    Plain { parent: Vec<&'a [u8]>, name: &'a [u8] },
    /// Hides `name` of the layers below.
    Whiteout { parent: Vec<&'a [u8]>, name: &'a [u8] },
    /// Hides everything of the layers below in this directory.
    Opaque { directory: Vec<&'a [u8]> },
    /// Bookkeeping of AUFS.
    Ignored,
}

/// Splits a relative path into its components.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, EntryProblem> {
    let parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| if part == b".." { Err(EntryProblem::DotDot) } else { Ok(part) }).collect()
}

/// Understands the name of a member (OCI image spec, layer.md, "Whiteouts").
pub(crate) fn parse(path: &[u8]) -> Result<Name<'_>, EntryProblem> {
    if path.is_empty() {
        return Err(EntryProblem::NoName);
    }
    // Kaniko writes the root as "/".
    if path.starts_with(b"/") && path.iter().any(|&b| b != b'/') {
        return Err(EntryProblem::Absolute);
    }
    let mut parent = components(path)?;
    let Some(name) = parent.pop() else { return Ok(Name::Root) };
    match name.strip_prefix(b".wh.") {
        None => Ok(Name::Plain { parent, name }),
        Some(b".wh..opq") => Ok(Name::Opaque { directory: parent }),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Name::Ignored),
        Some(b"" | b"." | b"..") => Err(EntryProblem::Whiteout),
        Some(hidden) => Ok(Name::Whiteout { parent, name: hidden }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let plain = |parent: &[&'static str], name: &'static str| Name::Plain {
            parent: parent.iter().map(|p| p.as_bytes()).collect(),
            name: name.as_bytes(),
        };
        assert_eq!(parse(b"a/b").unwrap(), plain(&["a"], "b"));
        assert_eq!(parse(b"./a//./b/").unwrap(), plain(&["a"], "b"));
        assert_eq!(parse(b"./").unwrap(), Name::Root);
        assert_eq!(parse(b"/").unwrap(), Name::Root);
        assert_eq!(parse(b"a/.wh.b").unwrap(), Name::Whiteout { parent: vec![b"a"], name: b"b" });
        assert_eq!(parse(b"a/.wh..wh..opq").unwrap(), Name::Opaque { directory: vec![b"a"] });
        assert_eq!(parse(b".wh..wh.plnk").unwrap(), Name::Ignored);
        assert_eq!(parse(b"..a/...").unwrap(), plain(&["..a"], "..."));
        for (bad, text) in [
            (&b"/etc/passwd"[..], "absolute"),
            (b"../x", ".."),
            (b"a/../b", ".."),
            (b"a/..", ".."),
            (b"", "no name"),
            (b"a/.wh.", "whiteout"),
            (b".wh...", "whiteout"),
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains(text), "{bad:?}");
        }
    }
}
