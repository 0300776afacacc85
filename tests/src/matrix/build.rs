//! `build` through the classic endpoint.

use super::Fixture;

fn write(f: &Fixture, files: &[(&str, &str)]) -> String {
    for (name, text) in files {
        let path = f.scratch.join(name);
        std::fs::create_dir_all(path.parent().expect("inside the scratch directory")).expect("mkdir");
        std::fs::write(path, text).expect("write a file of the context");
    }
    f.scratch.to_str().expect("utf-8").to_owned()
}

const EVERYTHING: &str = r#"
ARG WORD=hello
FROM busybox AS build
ARG WORD
WORKDIR /src
COPY in.txt skip* ./
RUN tr a-z A-Z < in.txt > out.txt && echo "$WORD" >> out.txt

FROM busybox
LABEL a=b
ENV X=1 PATH=/opt:$PATH
COPY --from=build --chown=1000:1000 /src/out.txt /data/
ADD in.txt /added/
RUN echo app:x:4242:4242::/:/bin/sh >> /etc/passwd && mkdir /vol && echo kept > /vol/file
USER app
WORKDIR /data
EXPOSE 8080/tcp
VOLUME /vol
STOPSIGNAL SIGINT
ENTRYPOINT ["cat"]
CMD ["out.txt"]
"#;

/// Every common instruction in one file, with two stages.
pub fn all_instructions(f: &Fixture) {
    let dir = write(
        f,
        &[("Dockerfile", EVERYTHING), ("in.txt", "text\n"), ("skipped", ""), (".dockerignore", "skipped\n")],
    );
    f.cli.ok(&["build", "-t", "every:one", "--build-arg", "WORD=bye", &dir]);
    assert!(f.cli.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains("every:one"));
    assert_eq!(f.cli.ok(&["run", "--rm", "every:one"]), "TEXT\nbye");
    let inside = ["run", "--rm", "--entrypoint", "sh", "every:one", "-c"];
    let said =
        f.cli.ok(&[&inside[..], &["id -u; stat -c %u:%g /data/out.txt; ls /added; cat /vol/file; echo $X"]]
            .concat());
    assert_eq!(said, "4242\n1000:1000\nin.txt\nkept\n1");
    let config = f.cli.ok(&["inspect", "--format",
        "{{.Config.User}} {{.Config.WorkingDir}} {{.Config.StopSignal}} {{json .Config.Volumes}} {{json .Config.ExposedPorts}} {{index .Config.Labels \"a\"}}",
        "every:one"]);
    assert_eq!(config, "app /data SIGINT {\"/vol\":{}} {\"8080/tcp\":{}} b");
}

/// The second build of the same thing runs nothing, and a changed file runs what depends on it.
pub fn cache(f: &Fixture) {
    let dockerfile =
        "FROM busybox\nRUN head -c 8 /dev/urandom | od -x > /random\nCOPY f /f\nRUN cat /f /random\n";
    let dir = write(f, &[("Dockerfile", dockerfile), ("f", "1")]);
    let id = |f: &Fixture| f.cli.ok(&["build", "-q", &dir]);
    let first = id(f);
    assert!(first.starts_with("sha256:"), "{first}");
    assert_eq!(id(f), first);
    // Only the time changes: that is no change.
    let file = std::fs::File::options().write(true).open(f.scratch.join("f")).expect("open");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set the time");
    assert_eq!(id(f), first);
    let random = |f: &Fixture, image: &str| f.cli.ok(&["run", "--rm", image, "cat", "/random"]);
    let before = random(f, &first);
    write(f, &[("f", "2")]);
    let second = id(f);
    assert_ne!(second, first);
    assert_eq!(random(f, &second), before, "the step before the changed file comes from the cache");
    let third = f.cli.ok(&["build", "-q", "--no-cache", &dir]);
    assert_ne!(random(f, &third), before);
}

/// A failing step fails the build, with its exit code.
pub fn failing_step(f: &Fixture) {
    let dir = write(f, &[("Dockerfile", "FROM busybox\nRUN echo before && exit 17\n")]);
    // The CLI ends with the code of the step, as docker's classic builder has it.
    f.cli.run(&["build", "--force-rm", &dir]).expect_code(17).expect_text("returned a non-zero code: 17");
    assert_eq!(f.cli.ok(&["ps", "-aq"]), "");
}

/// A mistake in the file is shown with its line.
pub fn syntax_error(f: &Fixture) {
    let dir = write(f, &[("Dockerfile", "FROM busybox\nCOYP a b\n")]);
    f.cli.run(&["build", &dir]).expect_code(1).expect_text("COYP");
    let dir = write(f, &[("Dockerfile", "FROM busybox\nCOPY nosuch /\n")]);
    f.cli.run(&["build", &dir]).expect_code(1).expect_text("nosuch");
}

/// `--target` stops at a stage, `-f` takes another file, labels are put on.
pub fn options(f: &Fixture) {
    let text = "FROM busybox AS one\nENV STAGE=one\nFROM one AS two\nENV STAGE=two\n";
    let dir = write(f, &[("other.Dockerfile", text)]);
    let file = format!("{dir}/other.Dockerfile");
    f.cli.ok(&["build", "-t", "staged", "--target", "one", "--label", "l=v", "-f", &file, &dir]);
    let said = f.cli.ok(&["inspect", "--format", "{{json .Config.Env}}{{.Config.Labels.l}}", "staged"]);
    assert!(said.contains("STAGE=one") && said.ends_with('v'), "{said}");
    let limits = "FROM busybox\nRUN test \"$(ulimit -n)\" = 77\n";
    let dir = write(f, &[("Dockerfile", limits)]);
    f.cli.ok(&["build", "--ulimit", "nofile=77:77", "--compress", "--isolation", "default", &dir]);
    for (flags, text) in [
        (&["--isolation", "hyperv"][..], "nsupported isolation"),
        (&["--security-opt", "no-new-privileges"], "does not support setting security options on build"),
        (&["--squash"], "squash"),
    ] {
        let run = f.cli.run(&[&["build"], flags, &[dir.as_str()]].concat());
        assert_ne!(run.code, 0, "{flags:?}");
        drop(run.expect_text(text));
    }
}

/// A Dockerfile on standard input needs no context.
pub fn from_standard_input(f: &Fixture) {
    let run = f.cli.run_with_input(&["build", "-t", "stdin", "-"], b"FROM busybox\nRUN echo here > /where\n");
    drop(run.success());
    assert_eq!(f.cli.ok(&["run", "--rm", "stdin", "cat", "/where"]), "here");
}

/// A link in the context or in the image never leads a copy out of the image.
pub fn hostile_links(f: &Fixture) {
    let text = "FROM busybox\nRUN ln -s /etc /link && ln -s ../../../../../../../../../tmp /up\n\
                COPY f /link/from-build\nCOPY f /up/from-build\nRUN test -f /etc/from-build && test -f /tmp/from-build\n";
    let dir = write(f, &[("Dockerfile", text), ("f", "f")]);
    f.cli.ok(&["build", "-t", "links", &dir]);
    assert!(
        !std::path::Path::new("/etc/from-build").exists()
            && !std::path::Path::new("/tmp/from-build").exists()
    );
}

/// A step on a network of one's own finds the containers there by name, and none on another.
pub fn names(f: &Fixture) {
    f.cli.ok(&["network", "create", "of-build"]);
    let db = ["run", "-d", "--name", "db", "--network", "of-build", "--network-alias", "store.example"];
    f.cli.ok(&[&db[..], &["busybox", "sleep", "1000"]].concat());
    let dir = write(f, &[("Dockerfile", "FROM busybox\nRUN ping -c1 -q db && ping -c1 -q store.example\n")]);
    f.cli.ok(&["build", "--network", "of-build", &dir]);
    f.cli.run(&["build", "--no-cache", &dir]).expect_code(1);
}
