//! Registries that lie, break off, refuse, or want to see a token first.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_oci::Digest;
use berth_registry::{Credentials, ErrorKind, RegistryError};
use support::{Answer, Blobs, FakeRegistry, Host, Log, amd64, host, image, layer, noise};

const NOBODY: Credentials = Credentials::Anonymous;

fn sample() -> Blobs {
    image("amd64", &[layer("big", &noise(400_000, 7)), layer("small", b"small")])
}

/// Unpacked layers; the store has other directories beside them.
fn trees(host: &Host) -> usize {
    let entries = std::fs::read_dir(host.dir.path().join("layers")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().len() == 64).count()
}

/// No image, no layer that was not verified, no half-made tree.
fn assert_clean(host: &Host, made: &Blobs) {
    assert!(host.store.images().list(true).unwrap().is_empty());
    assert!(!host.store.content().contains(&made.layers[0].digest));
    let trees = trees(host);
    assert!(trees <= 1, "at most the small layer is there, not {trees}");
    // Threads of the other layers notice a moment later that nobody waits for them.
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(host.dir.path().join("tmp")).unwrap().count() > 0 {
        assert!(std::time::Instant::now() < patience, "a half-made tree stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_the_digest_says_are_refused() {
    let made = sample();
    let bad = made.layers[0].digest.clone();
    let size = made.layers[0].size as usize;
    let registry = FakeRegistry::of(&made, move |request| {
        request.path.ends_with(bad.as_str()).then(|| Answer::new(200, noise(size, 99)))
    });
    let host = host();
    let error = host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::WrongContent { wanted, .. } if *wanted == made.layers[0].digest),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("filesystem layer verification failed for digest sha256:"),
        "{error}"
    );
    assert_clean(&host, &made);
    // The wrong bytes do not poison the next attempt.
    let good = FakeRegistry::of(&made, |_| None);
    host.registry.pull(&good.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_the_configuration_s_is_refused() {
    // The manifest leads to good bytes, but the configuration names another tree.
    let (bytes, _) = layer("evil", &noise(100_000, 5));
    let made = image("amd64", &[(bytes, Digest::of(b"something else"))]);
    let registry = FakeRegistry::of(&made, |_| None);
    let host = host();
    let error = host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert!(matches!(error, RegistryError::Store(_)), "{error}");
    assert!(host.store.images().list(true).unwrap().is_empty());
    assert_eq!(trees(&host), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_by_digest_is_verified() {
    let made = sample();
    let other = image("amd64", &[layer("other", b"other")]);
    let registry = FakeRegistry::of(&made, move |request| {
        request.path.contains("/manifests/").then(|| {
            support::honest(
                &other,
                &support::Request {
                    method: "GET".into(),
                    path: "/v2/x/manifests/latest".into(),
                    headers: Default::default(),
                    body: Vec::new(),
                },
            )
        })
    });
    let host = host();
    let reference = registry.reference("x").with_digest(made.manifest.digest.clone());
    let error = host.registry.pull(&reference, &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("manifest verification failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_are_cut() {
    let made = sample();
    let registry = FakeRegistry::of(&made, |request| {
        request.path.contains("/manifests/").then(|| Answer::new(200, vec![b' '; 8 << 20]))
    });
    let host = host();
    let error = host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");

    // A layer longer than announced: the rest is not read.
    let long = made.layers[0].digest.clone();
    let bytes = made.blobs[&long].clone();
    let registry = FakeRegistry::of(&made, move |request| {
        request
            .path
            .ends_with(long.as_str())
            .then(|| Answer::new(200, [bytes.clone(), noise(1 << 20, 1)].concat()))
    });
    host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_broke() {
    let made = sample();
    let big = made.layers[0].digest.clone();
    let (bytes, tries) = (made.blobs[&big].clone(), AtomicUsize::new(0));
    let path = big.clone();
    let registry = FakeRegistry::of(&made, move |request| {
        if !request.path.ends_with(path.as_str()) || tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return None;
        }
        Some(Answer::new(200, &bytes[..150_000]).header("Content-Length", bytes.len().to_string()))
    });
    let (host, log) = (host(), Log::default());
    host.registry.pull(&registry.reference("x"), &amd64(), &NOBODY, log.listener()).await.unwrap();
    assert!(log.layer(&big).contains(&"Retrying in 1 second".to_owned()), "{:?}", log.layer(&big));
    assert_eq!(registry.count("bytes=150000-"), 1, "{:?}", registry.requests.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pull_leaves_its_beginning_for_the_next() {
    let made = sample();
    let big = made.layers[0].digest.clone();
    let (bytes, path) = (made.blobs[&big].clone(), big.clone());
    let broken = FakeRegistry::of(&made, move |request| {
        request.path.ends_with(path.as_str()).then(|| {
            match request.headers.get("range").map(String::as_str) {
                None => Answer::new(200, &bytes[..150_000]).header("Content-Length", bytes.len().to_string()),
                _ => Answer::new(404, ""),
            }
        })
    });
    let host = host();
    host.registry.pull(&broken.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert_clean(&host, &made);
    let good = FakeRegistry::of(&made, |_| None);
    host.registry.pull(&good.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
    assert_eq!(good.count("bytes=150000-"), 1, "{:?}", good.requests.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_bearable() {
    let made = sample();
    let big = made.layers[0].digest.clone();
    let (bytes, tries) = (made.blobs[&big].clone(), AtomicUsize::new(0));
    let registry = FakeRegistry::of(&made, move |request| {
        if !request.path.ends_with(big.as_str()) {
            return None;
        }
        Some(match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::new(200, &bytes[..150_000]).header("Content-Length", bytes.len().to_string()),
            _ => Answer::new(200, bytes.clone()),
        })
    });
    host().registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_pull_stops() {
    let made = sample();
    let big = made.layers[0].digest.clone();
    let registry = FakeRegistry::of(&made, move |request| {
        if request.path.ends_with(big.as_str()) {
            std::thread::sleep(Duration::from_secs(120));
        }
        None
    });
    let host = host();
    let reference = registry.reference("x");
    let platform = amd64();
    let pull = host.registry.pull(&reference, &platform, &NOBODY, |_| {});
    assert!(tokio::time::timeout(Duration::from_millis(400), pull).await.is_err());
    // The same layer can be fetched at once: nobody holds it any more.
    let good = FakeRegistry::of(&made, |_| None);
    let reference = good.reference("x");
    let again = host.registry.pull(&reference, &platform, &NOBODY, |_| {});
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("not blocked").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again() {
    let made = sample();
    let tries = AtomicUsize::new(0);
    let registry = FakeRegistry::of(&made, move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        1 => Some(Answer::new(429, "").header("Retry-After", "0")),
        3 | 5 => Some(Answer::new(503, "come back later")),
        _ => None,
    });
    host().registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap();

    let limit =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let registry =
        FakeRegistry::of(&made, move |r| r.path.contains("/manifests/").then(|| Answer::new(429, limit)));
    let error = host().registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "toomanyrequests: You have reached your pull rate limit.");
    assert_eq!(registry.count("/manifests/"), 3, "once, and two retries");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_sent() {
    let made = sample();
    let token_service = FakeRegistry::start(|request| {
        let basic = "Basic Y2FwdGFpbjphaG95"; // captain:ahoy
        let scope =
            request.path.contains("scope=repository%3Ax%3Apull") && request.path.contains("service=here");
        let form = String::from_utf8_lossy(&request.body).into_owned();
        match request.method.as_str() {
            "GET" if scope && request.headers.get("authorization").is_some_and(|a| a == basic) => {
                Answer::new(200, r#"{"token":"open-sesame"}"#)
            }
            "POST"
                if form.contains("refresh_token=long-lived") && form.contains("grant_type=refresh_token") =>
            {
                Answer::new(200, r#"{"access_token":"open-sesame"}"#)
            }
            _ => Answer::new(401, r#"{"details":"incorrect username or password"}"#),
        }
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"here\"", token_service.host);
    let registry = FakeRegistry::of(&made, move |request| {
        let granted = request.headers.get("authorization").is_some_and(|a| a == "Bearer open-sesame");
        (!granted).then(|| {
            Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
                .header("WWW-Authenticate", challenge.clone())
        })
    });
    let basic = |password: &str| Credentials::Basic { username: "captain".into(), password: password.into() };
    let pull = |credentials: Credentials| {
        let reference = registry.reference("x");
        async move { host().registry.pull(&reference, &amd64(), &credentials, |_| {}).await }
    };
    pull(basic("ahoy")).await.unwrap();
    pull(Credentials::IdentityToken("long-lived".into())).await.unwrap();
    pull(Credentials::Bearer("open-sesame".into())).await.unwrap();
    let error = pull(basic("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_no_image() {
    let mut made = sample();
    let text = String::from_utf8(made.blobs[&made.manifest.digest].clone()).unwrap();
    let text =
        text.replace("application/vnd.oci.image.config.v1+json", "application/vnd.example.helm.v1+json");
    made.manifest.digest = Digest::of(text.as_bytes());
    made.blobs.insert(made.manifest.digest.clone(), text.into_bytes());
    let registry = FakeRegistry::of(&made, |_| None);
    let error = host().registry.pull(&registry.reference("x"), &amd64(), &NOBODY, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.to_string().contains("application/vnd.example.helm.v1+json"), "{error}");
}
