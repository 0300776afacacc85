//! Whole projects, against what docker compose 2.40.3 makes of the same files.
//!
//! `fixtures/*/expected.json` was recorded with `docker compose config --format json`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use berth_compose::{
    Options, Project, load,
    load::{LoadError, Tree},
    model::Format,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn options(directory: &Path) -> Options {
    let environment = [("HOME", "/home/u"), ("FROM_HOST", "host"), ("TOKEN", "t")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Options::new(directory.to_owned(), BTreeMap::from(environment))
}

fn project(tree: &Tree) -> Project {
    let mut project = Project::from_tree(tree, true).expect("fits together");
    project.drop_unused();
    project.resolve_labels(true).expect("labels");
    project.resolve_environment().expect("environment");
    project
}

/// The project as `config --format json` prints it, with the fixtures' directory by name.
fn config(options: &Options) -> serde_json::Value {
    let tree = load(options).expect("loads");
    let text = project(&tree).render(&tree, Format::Json).replace('$', "$$");
    let text = text.replace(&*fixtures().to_string_lossy(), "FIXTURES");
    serde_json::from_str(&text).expect("is JSON")
}

fn expected(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixtures().join(name).join("expected.json")).expect("recorded");
    serde_json::from_str(&text).expect("is JSON")
}

#[test]
fn a_project_with_everything() {
    let mut options = options(&fixtures().join("shop"));
    options.profiles = vec!["*".to_owned()];
    assert_eq!(config(&options), expected("shop"));
}

#[test]
fn files_on_top_of_each_other_and_services_that_extend() {
    let mut options = options(&fixtures().join("merge"));
    options.project_name = Some("merge".to_owned());
    options.files = ["compose.yaml", "override.yaml"].map(PathBuf::from).to_vec();
    assert_eq!(config(&options), expected("merge"));
}

#[test]
fn included_files_have_their_own_directory_and_environment() {
    let mut options = options(&fixtures().join("include"));
    options.project_name = Some("include".to_owned());
    assert_eq!(config(&options), expected("include"));
}

fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, Options) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in the directory")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let options = options(directory.path());
    (directory, options)
}

/// The message without the directory.
fn wrong(files: &[(&str, &str)]) -> String {
    let (directory, options) = written(files);
    let error = load(&options).and_then(|tree| Project::from_tree(&tree, true)).expect_err("must not load");
    error.to_string().replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, message) in [
        (
            "services:\n  web:\n    image: x\n    port: [80]\n",
            "compose.yaml:4:5: services.web: unknown key \"port\"; did you mean \"ports\"?",
        ),
        (
            "services:\n  web:\n    image: x\n    networks: [nope]\n",
            "compose.yaml:4:5: services.web.networks: service \"web\" refers to undefined network nope",
        ),
        (
            "services:\n  web:\n    image: ${NO:?say which}\n",
            "compose.yaml:3:5: services.web.image: required variable NO is missing a value: say which; set NO in the environment, in .env or with --env-file",
        ),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n",
            "compose.yaml:2:17: services.a.depends_on: dependency cycle detected: a -> b -> a",
        ),
        (
            "services:\n  a:\n    extends: b\n  b:\n    extends: a\n",
            "compose.yaml:3:5: services.a: extends itself: a in compose.yaml, which extends b in compose.yaml",
        ),
        (
            "services:\n  a: {image: x, mem_limit: 12q}\n",
            "compose.yaml:2:17: services.a.mem_limit: invalid size: \"12q\"",
        ),
        ("services:\n  a: {image: x, volumes: ['/a:/b', '/c:/b']}\n", "fine"),
        (
            "services:\n  a: {image: x, tmpfs: /b, volumes: ['/a:/b']}\n",
            "compose.yaml:2:38: services.a.volumes[0]: target /b already mounted as services.a.tmpfs[0]",
        ),
        (
            "services:\n  a: {}\n",
            "compose.yaml:2:3: services.a: service \"a\" has neither an image nor a build context specified",
        ),
    ] {
        if message == "fine" {
            let (_directory, options) = written(&[("compose.yaml", text)]);
            Project::from_tree(&load(&options).expect("loads"), true).expect("fits together");
        } else {
            assert_eq!(wrong(&[("compose.yaml", text)]), message);
        }
    }
    let included =
        wrong(&[("compose.yaml", "include: [a/b.yaml]\n"), ("a/b.yaml", "services:\n  x: {imag: y}\n")]);
    assert_eq!(included, "a/b.yaml:2:7: services.x: unknown key \"imag\"; did you mean \"image\"?");
    let cycle = wrong(&[("compose.yaml", "include: [b.yaml]\n"), ("b.yaml", "include: [compose.yaml]\n")]);
    assert_eq!(
        cycle,
        "b.yaml:1:11: include[0]: include cycle detected: compose.yaml includes b.yaml includes compose.yaml"
    );
}

#[test]
fn files_elsewhere_are_not_fetched() {
    for (text, place) in [
        (
            "include: ['https://example.org/x.git']\n",
            "compose.yaml:1:11: include[0]: https://example.org/x.git",
        ),
        (
            "include: [{path: 'oci://example.org/x:1'}]\n",
            "compose.yaml:1:11: include[0]: oci://example.org/x:1",
        ),
        (
            "services: {a: {extends: {service: b, file: 'git@example.org:x'}}}\n",
            "compose.yaml:1:16: services.a.extends: git@example.org:x",
        ),
    ] {
        let message = wrong(&[("compose.yaml", text)]);
        assert!(message.starts_with(&format!("{place} is not a file of this machine")), "{message}");
    }
    let (_directory, mut options) = written(&[]);
    options.files = vec!["https://example.org/x.git".into()];
    assert!(matches!(load(&options), Err(LoadError::Remote(file)) if file == "https://example.org/x.git"));
}

#[test]
fn the_project_has_the_name_it_should() {
    let name = |files: &[(&str, &str)], change: &dyn Fn(&mut Options)| {
        let (_directory, mut options) = written(files);
        change(&mut options);
        load(&options).map(|tree| tree.name)
    };
    let plain: &[(&str, &str)] = &[("My_Dir/compose.yaml", "services: {a: {image: x}}")];
    let named: &[(&str, &str)] =
        &[("My_Dir/compose.yaml", "name: In-${FROM_HOST}\nservices: {a: {image: x}}")];
    let in_directory = |options: &mut Options| options.current_dir.push("My_Dir");
    assert_eq!(name(plain, &in_directory).unwrap(), "my_dir");
    assert_eq!(name(named, &in_directory).unwrap(), "in-host");
    let by_flag = |options: &mut Options| {
        in_directory(options);
        options.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), "by-env".to_owned());
    };
    assert_eq!(name(named, &by_flag).unwrap(), "by-env");
    let both = |options: &mut Options| {
        by_flag(options);
        options.project_name = Some("by-flag".to_owned());
    };
    assert_eq!(name(named, &both).unwrap(), "by-flag");
    let bad = |options: &mut Options| {
        in_directory(options);
        options.project_name = Some("Bad Name".to_owned());
    };
    assert!(matches!(name(named, &bad), Err(LoadError::ProjectName(_))));
}

#[test]
fn a_file_above_is_found() {
    let (_directory, mut options) = written(&[
        ("compose.yaml", "services: {a: {image: x}}"),
        ("compose.override.yaml", "services: {a: {hostname: h}}"),
        ("deep/er/file", ""),
    ]);
    options.current_dir.push("deep/er");
    let tree = load(&options).expect("loads");
    assert_eq!(tree.files.len(), 2);
    assert_eq!(project(&tree).services["a"].hostname, "h");
}

#[test]
fn where_variables_come_from() {
    let (_directory, mut options) = written(&[
        ("compose.yaml", "services: {a: {image: '${WHO}', env_file: e.env, environment: [OWN=own, WHO]}}"),
        (".env", "WHO=dotenv\n"),
        ("one.env", "WHO=one\n"),
        ("two.env", "WHO=two\n"),
        ("e.env", "OWN=file\nFILE=file\n"),
    ]);
    let image = |options: &Options| {
        let tree = load(options).expect("loads");
        let service = project(&tree).services["a"].clone();
        let value = |name: &str| service.environment[name].clone().unwrap_or_default();
        (service.image.clone(), value("WHO"), value("OWN"), value("FILE"))
    };
    let texts = |a: &str, b: &str| (a.to_owned(), b.to_owned(), "own".to_owned(), "file".to_owned());
    assert_eq!(image(&options), texts("dotenv", "dotenv"));
    options.env_files = ["one.env", "two.env"].map(PathBuf::from).to_vec();
    assert_eq!(image(&options), texts("two", "two"));
    options.environment.insert("WHO".to_owned(), "process".to_owned());
    assert_eq!(image(&options), texts("process", "process"));
}

/// Directories of Compose files of others, given by the environment, load without a panic: what is refused is
/// refused with a message.
#[test]
fn files_of_others_do_not_break_the_loader() {
    fn visit(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => visit(&path, files),
                Some("yml" | "yaml") => files.push(path),
                _ => {}
            }
        }
    }
    let directory = std::env::var("BERTH_COMPOSE_FILES").map_or_else(|_| fixtures(), PathBuf::from);
    let mut files = Vec::new();
    visit(&directory, &mut files);
    assert!(!files.is_empty(), "there are no Compose files in {}", directory.display());
    for file in files {
        let mut options = options(file.parent().expect("a file has a directory"));
        options.files = vec![file.clone()];
        match load(&options).and_then(|tree| Project::from_tree(&tree, true)) {
            Ok(project) => assert!(project.services.values().all(|service| service.hash().len() == 64)),
            Err(error) => assert!(!error.to_string().is_empty(), "{}", file.display()),
        }
    }
}

/// Recorded with `docker compose config --hash '*'`.
#[test]
fn hashes_are_docker_composes() {
    let directory = fixtures().join("hashes");
    let mut options = options(&directory);
    options.profiles = vec!["*".to_owned()];
    let tree = load(&options).expect("loads");
    let project = Project::from_tree(&tree, true).expect("fits together");
    let lines = project.services.iter().map(|(name, service)| format!("{name} {}", service.hash()));
    let recorded = std::fs::read_to_string(directory.join("hashes.txt")).expect("recorded");
    assert_eq!(lines.collect::<Vec<_>>(), recorded.lines().collect::<Vec<_>>());
}
