//! Against Debian's docker-registry, with skopeo as the other party.

mod support;

use berth_oci::{Digest, Platform};
use berth_registry::{Credentials, ErrorKind, LayerState, PushOptions};
use support::{Log, RealRegistry, amd64, host, image, index, layer, noise, skopeo};

const NOBODY: Credentials = Credentials::Anonymous;

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushed_is_pulled_the_same() {
    let registry = RealRegistry::start();
    let layers = [layer("a", b"alpha"), layer("b", &noise(300_000, 1)), layer("c", b"gamma")];
    let made = image("amd64", &layers);
    made.push_with_skopeo(&registry, "team/app:v1", &["--preserve-digests"]);
    let (host, log) = (host(), Log::default());
    let reference = registry.reference("team/app:v1");

    let pulled = host.registry.pull(&reference, &amd64(), &NOBODY, log.listener()).await.unwrap();
    assert_eq!((&pulled.id, &pulled.digest), (&made.config, &made.manifest.digest));
    assert!(!pulled.up_to_date);
    let image = host.store.images().resolve(&reference.to_string()).unwrap();
    assert_eq!(image.id, made.config);
    assert_eq!(image.repo_digests, [reference.with_digest(made.manifest.digest.clone())]);
    let top = host.store.layers().path(&image.layers[1]);
    assert_eq!(std::fs::read(top.join("b")).unwrap(), noise(300_000, 1));

    let familiar = reference.familiar();
    assert_eq!(
        log.statuses(),
        [
            "v1: Pulling from team/app".to_owned(),
            format!("Digest: {}", made.manifest.digest),
            format!("Status: Downloaded newer image for {familiar}"),
        ]
    );
    let words = log.layer(&made.layers[1].digest);
    let milestones =
        ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Pull complete"];
    let mut found = words.iter();
    for milestone in milestones {
        assert!(found.any(|word| word == milestone), "{milestone}: {words:?}");
    }

    // Again: one look at the registry, nothing else.
    let log = Log::default();
    let again = host.registry.pull(&reference, &amd64(), &NOBODY, log.listener()).await.unwrap();
    assert!(again.up_to_date);
    assert_eq!(log.statuses().last().unwrap(), &format!("Status: Image is up to date for {familiar}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_there_are_not_fetched_again() {
    let registry = RealRegistry::start();
    let base = layer("base", &noise(100_000, 2));
    let (one, two) =
        (image("amd64", std::slice::from_ref(&base)), image("amd64", &[base, layer("top", b"top")]));
    one.push_with_skopeo(&registry, "one", &["--preserve-digests"]);
    two.push_with_skopeo(&registry, "two", &["--preserve-digests"]);
    let host = host();
    host.registry.pull(&registry.reference("one"), &amd64(), &NOBODY, |_| {}).await.unwrap();
    let log = Log::default();
    host.registry.pull(&registry.reference("two"), &amd64(), &NOBODY, log.listener()).await.unwrap();
    assert_eq!(log.layer(&two.layers[0].digest), ["Already exists"]);
    assert_eq!(log.layer(&two.layers[1].digest).last().unwrap(), "Pull complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_platform() {
    let registry = RealRegistry::start();
    let (amd, arm) = (image("amd64", &[layer("f", b"amd")]), image("arm64", &[layer("f", b"arm")]));
    let both = index(&[("linux/amd64", &amd), ("linux/arm64", &arm)]);
    both.push_with_skopeo(&registry, "multi", &["--all", "--preserve-digests"]);
    let reference = registry.reference("multi");
    let host = host();
    let pull = |platform: &str| {
        let platform = Platform::parse(platform).unwrap();
        let (registry, reference) = (host.registry.clone(), reference.clone());
        async move { registry.pull(&reference, &platform, &NOBODY, |_| {}).await }
    };
    let pulled = pull("linux/amd64").await.unwrap();
    // The digest is the index's, as docker says it; the id is the image's.
    assert_eq!((&pulled.id, &pulled.digest), (&amd.config, &both.manifest.digest));
    assert_eq!(pull("linux/arm64").await.unwrap().id, arm.config);
    let error = pull("linux/s390x").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/s390x in the manifest list entries (offered: linux/amd64, linux/arm64)"
    );
    // By digest: pulled, but not tagged.
    let other = support::host();
    let by_digest = reference.with_digest(arm.manifest.digest.clone());
    other.registry.pull(&by_digest, &Platform::parse("linux/arm64").unwrap(), &NOBODY, |_| {}).await.unwrap();
    let image = other.store.images().get(&arm.config).unwrap().unwrap();
    assert_eq!((image.tags.len(), image.repo_digests), (0, vec![by_digest]));

    let distribution = host.registry.inspect_distribution(&reference, &NOBODY).await.unwrap();
    assert_eq!(distribution.descriptor.digest, both.manifest.digest);
    assert_eq!(distribution.descriptor.media_type, berth_oci::media_type::OCI_INDEX);
    let platforms: Vec<_> = distribution.platforms.iter().map(Platform::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_schema_2_goes_both_ways_unchanged() {
    let registry = RealRegistry::start();
    let made = image("amd64", &[layer("a", b"alpha"), layer("b", b"beta")]);
    made.push_with_skopeo(&registry, "old", &["--format", "v2s2"]);
    let host = host();
    let reference = registry.reference("old");
    let pulled = host.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{reference}")]);
    assert_eq!(pulled.digest, Digest::of(raw.as_bytes()));

    let elsewhere = registry.reference("elsewhere/copy:v9");
    let log = Log::default();
    let pushed = host
        .registry
        .push(&elsewhere, &pulled.id, &NOBODY, &PushOptions::default(), log.listener())
        .await
        .unwrap();
    assert_eq!(pushed.digest, pulled.digest);
    let copied = skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{elsewhere}")]);
    assert_eq!(copied, raw);
    // The registry has the blobs in another repository: nothing was uploaded.
    assert!(log.all_layers(|state| match state {
        LayerState::MountedFrom(source) => source == "old",
        state => matches!(state, LayerState::Preparing | LayerState::Waiting),
    }));
    assert_eq!(log.statuses()[0], format!("The push refers to repository [{}]", elsewhere.name()));
    assert_eq!(log.statuses()[1], format!("v9: digest: {} size: {}", pushed.digest, pushed.size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_image_is_pushed_and_others_can_use_it() {
    let registry = RealRegistry::start();
    let host = host();
    let (tar, _) = layer("file", &noise(500_000, 3));
    let config = berth_oci::ImageConfig::new(&amd64());
    let local = host.store.import(&tar[..], config, None, None).unwrap();
    let reference = registry.reference("built");
    let log = Log::default();
    let pushed = host
        .registry
        .push(&reference, &local, &NOBODY, &PushOptions::default(), log.listener())
        .await
        .unwrap();
    let words = log.statuses();
    assert!(words.last().unwrap().contains(&pushed.digest.to_string()), "{words:?}");

    let inspected = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{reference}")]);
    assert!(inspected.contains(pushed.digest.as_str()), "{inspected}");
    let out = tempfile::tempdir().unwrap();
    skopeo(&[
        "copy",
        "--src-tls-verify=false",
        &format!("docker://{reference}"),
        &format!("dir:{}", out.path().display()),
    ]);

    // The id survives the round trip through compression and another host.
    let other = support::host();
    let pulled = other.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
    assert_eq!((&pulled.id, &pulled.digest), (&local, &pushed.digest));
    // Pushed again: everything is there.
    let log = Log::default();
    let again = host
        .registry
        .push(&reference, &local, &NOBODY, &PushOptions::default(), log.listener())
        .await
        .unwrap();
    assert_eq!(again, pushed);
    assert!(log.all_layers(|s| matches!(
        s,
        LayerState::Preparing | LayerState::Waiting | LayerState::LayerAlreadyExists
    )));
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_come_and_go_with_their_image() {
    let registry = RealRegistry::start();
    let made = image("amd64", &[layer("file", b"attested")]);
    let attested = index(&[("linux/amd64", &made)]);
    attested.push_with_skopeo(&registry, "app", &["--all", "--preserve-digests"]);
    let (one, reference) = (host(), registry.reference("app"));
    one.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
    let found = one.store.images().attestations(&made.config).unwrap();
    assert_eq!(found.len(), 1);
    let statement = &found[0].1.layers[0].digest;
    one.store.gc().unwrap();
    assert!(one.store.content().contains(statement), "it is kept with the image");

    // Pushed: the very index, with all that it names.
    let copy = registry.reference("copy");
    let pushed =
        one.registry.push(&copy, &made.config, &NOBODY, &PushOptions::default(), |_| {}).await.unwrap();
    assert_eq!(pushed.digest, attested.manifest.digest);
    let out = tempfile::tempdir().unwrap();
    let to = format!("dir:{}", out.path().display());
    skopeo(&["copy", "--all", "--src-tls-verify=false", &format!("docker://{copy}"), &to]);

    // Saved and loaded: the same, on a host that has never seen the registry.
    let mut archive = Vec::new();
    one.store.save(&[reference.to_string()], &mut archive).unwrap();
    let other = support::host();
    let loaded = other.store.load(&archive[..], &|_| {}).unwrap();
    assert_eq!((loaded.len(), &loaded[0].id), (1, &made.config));
    assert_eq!(other.store.images().attestations(&made.config).unwrap(), found);
    let again = registry.reference("again");
    let pushed =
        other.registry.push(&again, &made.config, &NOBODY, &PushOptions::default(), |_| {}).await.unwrap();
    assert_eq!(pushed.digest, attested.manifest.digest);

    // Removed with the image.
    one.store.images().remove(made.config.as_str(), true, true).unwrap();
    assert_eq!(one.store.counted(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_local_layer_is_sent_while_it_is_compressed() {
    let registry = RealRegistry::start();
    let host = host();
    // Several blocks, so that sending begins before compressing has ended.
    let options = |compression| PushOptions { compression, ..PushOptions::default() };
    for (name, compression) in
        [("gzip", berth_store::Compression::Gzip), ("zstd", berth_store::Compression::Zstd)]
    {
        let (tar, _) = layer(name, &noise(20_000_000, 11));
        let local = host.store.import(&tar[..], berth_oci::ImageConfig::new(&amd64()), None, None).unwrap();
        let (reference, log) = (registry.reference(name), Log::default());
        let pushed =
            host.registry.push(&reference, &local, &NOBODY, &options(compression), log.listener()).await;
        let pushed = pushed.unwrap();
        assert!(!log.all_layers(|state| !matches!(state, LayerState::Pushing { .. })), "its way is told");
        let other = support::host();
        let pulled = other.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
        assert_eq!((&pulled.id, &pulled.digest), (&local, &pushed.digest));
        let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{reference}")]);
        assert!(raw.contains(compression.layer_media_type()), "{raw}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_a_search_is_looked_through() {
    let registry = RealRegistry::start();
    let made = image("amd64", &[layer("file", b"x")]);
    for name in ["team/app", "team/tool", "other/app"] {
        made.push_with_skopeo(&registry, name, &[]);
    }
    let host = host();
    let names = async |term: &str, limit| -> Vec<String> {
        let found = host.registry.search(&format!("{}/{term}", registry.host), limit, &NOBODY).await.unwrap();
        found.into_iter().map(|found| found.name.split_once('/').unwrap().1.to_owned()).collect()
    };
    assert_eq!(names("app", 25).await, ["other/app", "team/app"]);
    assert_eq!(names("team/", 1).await, ["team/app"]);
    assert_eq!(names("nothing", 25).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_docker_s_words() {
    let registry = RealRegistry::start();
    let host = host();
    let missing = registry.reference("nothing:here");
    let error = host.registry.pull(&missing, &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {} not found: manifest unknown: manifest unknown", missing.familiar())
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let address = registry.host.clone();
    drop(registry);
    let error = host.registry.pull(&missing, &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused")
    );
    let error = host
        .registry
        .push(&missing, &Digest::of(b"no image"), &NOBODY, &PushOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("An image does not exist locally with the tag: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_open_doors() {
    // htpasswd of user "captain", password "ahoy" (bcrypt, made for this test).
    let registry = RealRegistry::with("auth: {htpasswd: {realm: test, path: \"@DIR@/htpasswd\"}}");
    let file = registry.dir.path().join("htpasswd");
    std::fs::write(file, "captain:$2y$05$abcdefghijklmnopqrstuupc2Bh/BcdpJnf0yyNxNgehaXaZ8mK5m\n").unwrap();
    let (host, reference) = (host(), registry.reference("secret"));
    let error = host.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("pull access denied for "), "{error}");
    let basic = |password: &str| Credentials::Basic { username: "captain".into(), password: password.into() };
    let error = host.registry.check_login(&registry.host, &basic("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    host.registry.check_login(&format!("http://{}/v2/", registry.host), &basic("ahoy")).await.unwrap();

    let (tar, _) = layer("file", b"secret");
    let local = host.store.import(&tar[..], berth_oci::ImageConfig::new(&amd64()), None, None).unwrap();
    let error =
        host.registry.push(&reference, &local, &NOBODY, &PushOptions::default(), |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("denied: requested access to the resource is denied"), "{error}");
    let pushed = host
        .registry
        .push(&reference, &local, &basic("ahoy"), &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let other = support::host();
    let pulled = other.registry.pull(&reference, &amd64(), &basic("ahoy"), |_| {}).await.unwrap();
    assert_eq!(pulled.digest, pushed.digest);
}

#[test]
fn an_engine_can_spawn_pulls_and_pushes() {
    fn spawnable<T: Send>(_: &T) {}
    let (host, reference, platform) = (host(), berth_oci::Reference::parse("x").unwrap(), amd64());
    spawnable(&host.registry.pull(&reference, &platform, &NOBODY, |_| {}));
    let id = Digest::of(b"");
    spawnable(&host.registry.push(&reference, &id, &NOBODY, &PushOptions::default(), |_| {}));
    spawnable(&host.registry.inspect_distribution(&reference, &NOBODY));
    spawnable(&host.registry.check_login("x", &NOBODY));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure() {
    let registry = RealRegistry::start();
    // Half noise, half zeroes: what compresses like a program.
    let content = |seed| [noise(8 << 20, seed), vec![0; 8 << 20]].concat();
    let layers: Vec<_> = (0..4).map(|n| layer(&format!("file{n}"), &content(n + 1))).collect();
    let made = image("amd64", &layers);
    made.push_with_skopeo(&registry, "large", &["--preserve-digests"]);
    let reference = registry.reference("large");
    let start = std::time::Instant::now();
    let out = tempfile::tempdir().unwrap();
    let (from, to) = (format!("docker://{reference}"), format!("dir:{}", out.path().display()));
    skopeo(&["copy", "--src-tls-verify=false", &from, &to]);
    eprintln!("skopeo copy to dir, not unpacked: {:?}", start.elapsed());
    let host = host();
    for what in ["pull and unpack", "pull again"] {
        let start = std::time::Instant::now();
        host.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
        eprintln!("{what}: {:?}", start.elapsed());
    }
    for what in ["push (mounted)", "push again"] {
        let start = std::time::Instant::now();
        host.registry
            .push(&registry.reference("copy"), &made.config, &NOBODY, &PushOptions::default(), |_| {})
            .await
            .unwrap();
        eprintln!("{what}: {:?}", start.elapsed());
    }
    let other = RealRegistry::start();
    let start = std::time::Instant::now();
    host.registry
        .push(&other.reference("copy"), &made.config, &NOBODY, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    eprintln!("push (uploaded): {:?}", start.elapsed());
}
