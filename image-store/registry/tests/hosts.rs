//! Mirrors, certificates and logins: real registries behind `certs.d`.

mod support;

use berth_registry::{Credentials, ErrorKind, PushOptions};
use support::{
    Answer, Authority, FakeRegistry, RealRegistry, amd64, host, host_with, hosts_toml, image, layer, noise,
};

const NOBODY: Credentials = Credentials::Anonymous;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_the_registry_for_what_it_lacks() {
    let made = image("amd64", &[layer("a", &noise(50_000, 1)), layer("b", b"beta")]);
    let missing = made.layers[1].digest.clone();
    let mirror =
        FakeRegistry::of(&made, move |r| r.path.contains(missing.as_str()).then(|| Answer::new(404, "")));
    let origin = FakeRegistry::of(&made, |_| None);
    let dirs = hosts_toml(
        &origin.host,
        &format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]", mirror.host),
    );
    let host = host_with(vec![dirs.path().to_owned()]);
    host.registry.pull(&origin.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
    assert_eq!(origin.requests.lock().unwrap().len(), 1, "only the blob that the mirror lacks");
    assert!(mirror.count(&format!("?ns={}", origin.host)) >= 4, "the mirror is told for whom");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_or_breaks_or_is_gone_is_passed_over() {
    let made = image("amd64", &[layer("a", &noise(300_000, 1)), layer("b", b"beta")]);
    let other = noise(made.layers[0].size as usize, 9);
    let big = made.layers[0].digest.clone();
    let lying = {
        let (big, other) = (big.clone(), other.clone());
        FakeRegistry::of(&made, move |r| {
            r.path.contains(big.as_str()).then(|| Answer::new(200, other.clone()))
        })
    };
    let cutting = FakeRegistry::of(&made, move |r| {
        r.path
            .contains(big.as_str())
            .then(|| Answer::new(200, &other[..100]).header("Content-Length", "300000"))
    });
    for mirror in
        [format!("http://{}", lying.host), format!("http://{}", cutting.host), "http://127.0.0.1:1".into()]
    {
        let origin = FakeRegistry::of(&made, |_| None);
        let dirs = hosts_toml(&origin.host, &format!("[host.\"{mirror}\"]"));
        let host = host_with(vec![dirs.path().to_owned()]);
        let pulled = host.registry.pull(&origin.reference("x"), &amd64(), &NOBODY, |_| {}).await;
        assert_eq!(pulled.unwrap().id, made.config, "{mirror}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_go_to_mirrors_nor_along_with_redirections() {
    let made = image("amd64", &[layer("a", b"alpha")]);
    let carries = |r: &support::Request| r.headers.contains_key("authorization");
    let blobs =
        FakeRegistry::of(&made, move |r| carries(r).then(|| Answer::new(400, "credentials came along")));
    let mirror = FakeRegistry::of(&made, move |r| {
        Some(
            Answer::new(if carries(r) { 418 } else { 401 }, "")
                .header("WWW-Authenticate", "Basic realm=\"m\""),
        )
    });
    let elsewhere = blobs.host.clone();
    let origin = FakeRegistry::of(&made, move |r| {
        if !carries(r) {
            return Some(Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"o\""));
        }
        let location = format!("http://{elsewhere}{}", r.path);
        r.path.contains("/blobs/").then(|| Answer::new(307, "").header("Location", location))
    });
    let dirs = hosts_toml(&origin.host, &format!("[host.\"http://{}\"]", mirror.host));
    let host = host_with(vec![dirs.path().to_owned()]);
    let captain = Credentials::Basic { username: "captain".into(), password: "ahoy".into() };
    host.registry.pull(&origin.reference("x"), &amd64(), &captain, |_| {}).await.unwrap();
    assert!(blobs.count("/blobs/") > 0);
    assert!(mirror.count("") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_client_certificate() {
    let authority = Authority::new();
    authority.sign("server");
    authority.sign("client");
    let tls = format!(
        "  tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
        authority.file("server.crt"),
        authority.file("server.key"),
        authority.file("ca.crt")
    );
    let registry = RealRegistry::with(&tls);
    let made = image("amd64", &[layer("a", b"alpha")]);
    let source = FakeRegistry::of(&made, |_| None);
    let (ca, cert, key) =
        (authority.file("ca.crt"), authority.file("client.crt"), authority.file("client.key"));
    let server = format!("server = \"https://{}\"\n", registry.host);
    let push = |text: String| {
        let (source, reference) = (source.reference("x"), registry.reference("x"));
        let dirs = hosts_toml(&registry.host, &text);
        let id = made.config.clone();
        async move {
            let host = host_with(vec![dirs.path().to_owned()]);
            host.registry.pull(&source, &amd64(), &NOBODY, |_| {}).await.unwrap();
            host.registry.push(&reference, &id, &NOBODY, &PushOptions::default(), |_| {}).await
        }
    };
    let error = push(server.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
    let error = push(format!("{server}ca = \"{ca}\"")).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("certificate"), "without our own: {error}");
    let error = push(format!("{server}ca = \"{key}x\"")).await.unwrap_err();
    assert!(error.to_string().contains("client.keyx"), "{error}");
    push(format!("{server}ca = \"{ca}\"\nclient = [[\"{cert}\", \"{key}\"]]")).await.unwrap();

    // Without looking, the same way back.
    let text = format!("{server}skip_verify = true\nclient = [[\"{cert}\", \"{key}\"]]");
    let dirs = hosts_toml(&registry.host, &text);
    let host = host_with(vec![dirs.path().to_owned()]);
    host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_index_goes_where_all_its_images_are_here() {
    let registry = RealRegistry::start();
    let (amd, arm) = (image("amd64", &[layer("f", b"amd")]), image("arm64", &[layer("f", b"arm")]));
    let both = support::index_without_attestation(&[("linux/amd64", &amd), ("linux/arm64", &arm)]);
    both.push_with_skopeo(&registry, "multi", &["--all", "--preserve-digests"]);
    let host = host();
    let reference = registry.reference("multi");
    let arm64 = berth_oci::Platform::parse("linux/arm64").unwrap();
    host.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap();
    let other = RealRegistry::start();
    let push = |name: &str| {
        let reference = other.reference(name);
        let (registry, id) = (host.registry.clone(), amd.config.clone());
        async move {
            let pushed =
                registry.push(&reference, &id, &NOBODY, &PushOptions::default(), |_| {}).await.unwrap();
            let raw = support::skopeo(&[
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{reference}"),
            ]);
            assert_eq!(berth_oci::Digest::of(raw.as_bytes()), pushed.digest);
            pushed.digest
        }
    };
    assert_eq!(push("one").await, amd.manifest.digest, "the other platform is not here");
    host.registry.pull(&reference, &arm64, &NOBODY, |_| {}).await.unwrap();
    assert_eq!(push("all").await, both.manifest.digest);
    let of_arm = format!("docker://{}", other.reference("all"));
    let config = support::skopeo(&[
        "--override-arch",
        "arm64",
        "inspect",
        "--config",
        "--raw",
        "--tls-verify=false",
        &of_arm,
    ]);
    assert_eq!(berth_oci::Digest::of(config.as_bytes()), arm.config);
    host.store.gc().unwrap();
    assert_eq!(push("after-gc").await, both.manifest.digest);
    let options = PushOptions { platform: Some(arm64), ..PushOptions::default() };
    let pushed =
        host.registry.push(&other.reference("arm"), &arm.config, &NOBODY, &options, |_| {}).await.unwrap();
    assert_eq!(pushed.digest, arm.manifest.digest);
}
