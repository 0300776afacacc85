//! Paths as `docker cp` means them. Pure.

/// A path in a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Absolute, clean.
    pub(super) path: String,
    /// What the archive's entries begin with: the last component, `.` for `dir/.`, `/` for the root.
    pub(super) base: String,
    /// The directory itself is meant, through a link if it is one: a slash follows.
    directory: bool,
}

impl Wanted {
    pub(super) fn parse(text: &str) -> Self {
        let path = crate::containers::clean_path(text);
        let dotted = text.ends_with("/.") || text == ".";
        let directory = dotted || text.ends_with('/');
        let base = match path.rsplit('/').next() {
            _ if dotted && path != "/" => ".".to_owned(),
            Some("") | None => "/".to_owned(),
            Some(last) => last.to_owned(),
        };
        Self { path, base, directory }
    }

    /// Parent and last component, unless the directory itself is to be opened.
    pub(super) fn split(&self) -> Option<(&str, &str)> {
        if self.directory || self.path == "/" {
            return None;
        }
        let (parent, name) = self.path.rsplit_once('/')?;
        Some((if parent.is_empty() { "/" } else { parent }, name))
    }
}

/// Where a link at `path` leads, as text: absolute, clean, inside the root.
pub(super) fn link_target(path: &str, text: &str) -> String {
    if text.starts_with('/') {
        return crate::containers::clean_path(text);
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    crate::containers::clean_path(&format!("{parent}/{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_marks_matter() {
        let parts = |text| {
            let wanted = Wanted::parse(text);
            let split = wanted.split().map(|(parent, name)| (parent.to_owned(), name.to_owned()));
            (wanted.path.clone(), wanted.base.clone(), split)
        };
        let own = |parent: &str, name: &str| Some((parent.to_owned(), name.to_owned()));
        assert_eq!(parts("/a/b"), ("/a/b".into(), "b".into(), own("/a", "b")));
        assert_eq!(parts("b"), ("/b".into(), "b".into(), own("/", "b")));
        assert_eq!(parts("/a/b/"), ("/a/b".into(), "b".into(), None));
        assert_eq!(parts("/a/b/."), ("/a/b".into(), ".".into(), None));
        assert_eq!(parts("/"), ("/".into(), "/".into(), None));
        assert_eq!(parts("/../x"), ("/x".into(), "x".into(), own("/", "x")));
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(link_target("/a/link", "../../../etc"), "/etc");
        assert_eq!(link_target("/a/link", "b"), "/a/b");
        assert_eq!(link_target("/a/link", "/x/./y"), "/x/y");
    }
}
