//! References against docker's own table (distribution/reference, `normalize_test.go`) and as a property.

use berth_oci::{Reference, ReferenceError};
use proptest::prelude::*;

const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

#[test]
fn normalises_as_docker_does() {
    let digest = format!("busybox@sha256:{HEX}");
    for (typed, full, familiar) in [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("private/moonbase", "docker.io/private/moonbase:latest", "private/moonbase:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
        (
            "127.0.0.1:8000/private/moonbase",
            "127.0.0.1:8000/private/moonbase:latest",
            "127.0.0.1:8000/private/moonbase:latest",
        ),
        ("[2001:db8::1]:5000/x", "[2001:db8::1]:5000/x:latest", "[2001:db8::1]:5000/x:latest"),
        ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
        ("foo/foo__bar--baz.q", "docker.io/foo/foo__bar--baz.q:latest", "foo/foo__bar--baz.q:latest"),
        (
            "docker.io/1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a",
            "docker.io/library/1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a:latest",
            "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a:latest",
        ),
        (&digest, &format!("docker.io/library/{digest}"), &digest),
    ] {
        let reference = Reference::parse(typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
        assert_eq!(reference.to_string(), full, "{typed}");
        assert_eq!(reference.familiar(), familiar, "{typed}");
        assert_eq!(Reference::parse(familiar).unwrap(), reference, "{typed}");
    }
    let both = Reference::parse(&format!("x:1@sha256:{HEX}")).unwrap();
    assert_eq!((both.tag(), both.digest().is_some()), (Some("1"), true));
}

#[test]
fn refuses_with_dockers_words() {
    for (typed, message) in [
        ("", "invalid reference format"),
        (" ", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("-docker", "invalid reference format"),
        ("docker///docker", "invalid reference format"),
        ("docker.io/docker/docker/", "invalid reference format"),
        ("foo_/bar", "invalid reference format"),
        ("foo___bar", "invalid reference format"),
        ("foo..bar", "invalid reference format"),
        ("busybox:", "invalid reference format"),
        ("busybox:-x", "invalid reference format"),
        ("busybox@", "invalid reference format"),
        ("busybox@sha256:abc", "invalid reference format"),
        ("https://github.com/docker/docker", "invalid reference format"),
        ("-x.io/y", "invalid reference format"),
        ("x.io:/y", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("foo/Bar:x", "invalid reference format: repository name (foo/Bar) must be lowercase"),
        (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
        (&format!("x@sha256:{}", &HEX[1..]), "invalid reference format: invalid checksum digest length"),
        (&format!("x@md4:{HEX}"), "invalid reference format: unsupported digest algorithm"),
        (&"a".repeat(256), "repository name must not be more than 255 characters"),
    ] {
        assert_eq!(Reference::parse(typed).unwrap_err().to_string(), message, "{typed:?}");
    }
    assert!(matches!(Reference::parse("x").unwrap().with_tag("a/b"), Err(ReferenceError::Format)));
}

proptest! {
    #[test]
    fn never_panics_and_is_stable(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
            prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
        }
    }

    #[test]
    fn everything_of_the_grammar_parses(
        domain in "([a-z0-9]{1,5}\\.[a-z]{2,3}(:[0-9]{1,5})?/)?",
        path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,6}){0,3}",
        tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
    ) {
        let text = format!("{domain}{path}{tag}");
        let reference = Reference::parse(&text).unwrap();
        let tag = if tag.is_empty() { ":latest" } else { &tag };
        let shown = reference.to_string();
        prop_assert!(shown.ends_with(&format!("{path}{tag}")), "{}", shown);
        prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
    }
}
