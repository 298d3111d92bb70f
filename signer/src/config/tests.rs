use super::*;

const SMALL: &str = r#"
    [server.tls]
    certificate = "server.crt"
    key = "/etc/muhurdar/server.key"
    client_ca = "ca.crt"
    [[token]]
    name = "t"
    module = "libsofthsm2.so"
    label = "l"
    pin_file = "pin"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("muhurdar.toml"), Path::new("/conf"))
}

#[test]
fn relative_paths_are_taken_from_the_files_own_folder() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.server.tls.certificate, Path::new("/conf/server.crt"));
    assert_eq!(config.server.tls.key, Path::new("/etc/muhurdar/server.key"));
    assert_eq!(config.tokens[0].pin_file.as_deref(), Some(Path::new("/conf/pin")));
    assert_eq!(
        config.tokens[0].module,
        Path::new("libsofthsm2.so"),
        "left to the loader"
    );
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let error = parse(&SMALL.replace("label =", "lable =")).unwrap_err().to_string();
    assert!(error.contains("lable") && error.contains("line 9"), "{error}");
}

#[test]
fn durations_and_sizes_are_written_as_people_write_them() {
    let text = format!("{SMALL}\n[limits]\ndocument = \"2 MiB\"\nrequest_timeout = \"1m 30s\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.limits.document.as_u64(), 2 << 20);
    assert_eq!(config.limits.request_timeout, Duration::from_secs(90));
}

#[test]
fn a_token_needs_one_selector_and_one_pin_source() {
    for (from, to) in [
        ("label = \"l\"", ""),
        ("label = \"l\"", "label = \"l\"\nslot = 1"),
        ("pin_file = \"pin\"", ""),
        ("pin_file = \"pin\"", "pin_file = \"pin\"\npin_env = \"PIN\""),
    ] {
        let error = parse(&SMALL.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains("exactly one"), "{error}");
    }
}

#[test]
fn limits_that_could_not_hold_a_document_are_refused() {
    let text = format!("{SMALL}\n[limits]\ndocument = \"64 MiB\"\nin_flight_bytes = \"1 MiB\"");
    assert!(parse(&text).unwrap_err().to_string().contains("in_flight_bytes"));
}

#[test]
fn as_many_threads_serve_and_digest_as_is_said_and_else_as_processors_allow() {
    let config = parse(SMALL).unwrap();
    let (network, digest) = (config.server.network_threads(), config.sealing.digest_threads());
    assert!(network >= 1 && network <= digest.div_ceil(2), "{network} of {digest}");

    let with = |n: usize| {
        let said = format!("[server]\nnetwork_threads = {n}\n[sealing]\ndigest_threads = {n}\n{SMALL}");
        parse(&said)
    };
    let config = with(7).unwrap();
    assert_eq!(
        (config.server.network_threads(), config.sealing.digest_threads()),
        (7, 7)
    );
    let error = with(10_000).unwrap_err().to_string();
    assert!(
        error.contains("server.network_threads is 10000") && error.contains("to 1024"),
        "{error}"
    );
}

#[test]
fn the_commented_example_is_a_configuration_and_names_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");
    let config = Config::load(Path::new(path)).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    // What it leaves unsaid it shows in a comment, so that nobody has to read the source to learn of a key.
    let unsaid = [
        "serial",
        "slot",
        "pin_env",
        "pin_credential",
        "certificates",
        "engines",
        "unix_socket",
        "crl",
        "spool_dir",
    ];
    for key in unsaid {
        assert!(text.contains(&format!("# {key} =")), "{key}");
    }
    let defaults = Limits::default();
    assert_eq!(config.limits.document, defaults.document);
    assert_eq!(config.limits.in_flight, defaults.in_flight);
    assert_eq!(config.limits.request_timeout, defaults.request_timeout);
    assert_eq!(config.server.drain_timeout, default_drain_timeout());
}

#[test]
fn the_configuration_for_kubernetes_fits_the_pod_that_it_is_mounted_in() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kubernetes"));
    let config = Config::load(&folder.join("muhurdar.toml")).unwrap();
    let pod = std::fs::read_to_string(folder.join("statefulset.yaml")).unwrap();
    let values = |key: &str| {
        let values = pod.lines().filter_map(|line| line.trim_start().strip_prefix(key));
        values.map(str::to_owned).collect::<Vec<_>>()
    };

    let (server, tls) = (&config.server, &config.server.tls);
    let mut needed = vec![&tls.certificate, &tls.key, &tls.client_ca];
    needed.extend(server.state_dir.iter().chain(&server.spool_dir));
    needed.extend(config.tokens.iter().filter_map(|t| t.pin_file.as_ref()));
    assert_eq!(
        needed.len(),
        5 + config.tokens.len(),
        "the root file system is read-only"
    );
    let mounts = values("mountPath: ");
    for path in needed {
        assert!(
            mounts.iter().any(|m| path.starts_with(m)),
            "{path:?} is in none of {mounts:?}"
        );
    }

    let ports = [server.listen, server.admin_listen].map(|a| a.port().to_string());
    assert_eq!(values("containerPort: "), ports);
    assert!(server.admin_listen.ip().is_unspecified(), "probes come from the node");

    let grace: u64 = values("terminationGracePeriodSeconds: ")[0].parse().unwrap();
    assert!(
        server.drain_timeout + Duration::from_secs(6) < Duration::from_secs(grace),
        "killed in its drain"
    );
}

#[test]
fn a_form_that_cannot_be_followed_is_refused_at_start() {
    for (text, word) in [
        ("[sealing.form]\nsigning_time_zone = \"Ankara\"", "signing_time_zone"),
        ("[sealing.form]\nkey_info = [\"KeyValue\"]", "key_info"),
        ("[sealing.form]\nclaimed_role = \"A\\uFFFE\"", "claimed_role"),
        (
            "[taxpayer.\"1234567890\".form]\nsignature_id = \"Signature\"",
            "signature_id",
        ),
        ("[taxpayer.\"123\".form]", "VKN"),
    ] {
        let error = parse(&format!("{SMALL}\n{text}")).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(
        parse(&format!(
            "{SMALL}\n[sealing.form]\nsigning_time_zone = \"Europe/Istanbul\""
        ))
        .is_ok()
    );
}

#[test]
fn a_clients_taxpayers_may_be_patterns_and_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("list"),
        "# the branch's own\n1234567890\n\n12345678901 # a person\n22*\n",
    )
    .unwrap();
    let client =
        "\n[[client]]\nname = \"c\"\nidentity = \"cn:c\"\ntaxpayers = [\"3?????????\"]\ntaxpayers_file = \"list\"\n";
    let read = |text: &str| Config::parse(text, Path::new("muhurdar.toml"), folder.path());
    let config = read(&format!("{SMALL}{client}")).unwrap();
    assert_eq!(
        config.clients[0].taxpayers,
        ["3?????????", "1234567890", "12345678901", "22*"]
    );
    let missing = read(&format!("{SMALL}{}", client.replace("\"list\"", "\"lost\""))).unwrap_err();
    assert!(missing.to_string().contains("lost"), "{missing}");
    std::fs::write(folder.path().join("list"), "12345x\n").unwrap();
    let bad = read(&format!("{SMALL}{client}")).unwrap_err().to_string();
    assert!(bad.contains("12345x"), "{bad}");
}

#[test]
fn traces_go_to_a_url_and_a_share_is_from_0_to_1() {
    let with = |lines: &str| parse(&format!("{SMALL}\n[telemetry]\n{lines}"));
    let config = with("otlp_endpoint = \"http://127.0.0.1:4317\"\nsample_ratio = 0.25").unwrap();
    assert_eq!(config.telemetry.sample_ratio, 0.25);
    assert_eq!(
        parse(SMALL).unwrap().telemetry.otlp_endpoint,
        None,
        "off where nothing is said"
    );
    for (lines, complaint) in [
        ("otlp_endpoint = \"127.0.0.1:4317\"", "http://HOST:4317"),
        ("sample_ratio = 1.5", "from 0 to 1"),
        ("sample_ratio = nan", "from 0 to 1"),
    ] {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }
}
