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
fn an_audit_log_has_one_place_and_what_it_leaves_unsaid_is_a_file_a_day_for_a_month() {
    let with = |lines: &str| parse(&format!("{SMALL}\n[log.audit]\n{lines}"));
    let log = with("file = \"audit.log\"").unwrap().log;
    assert_eq!((log.when_full, log.queue.as_u64()), (WhenFull::Drop, 8 << 20));
    let audit = log.audit.unwrap();
    assert_eq!(audit.file.as_deref(), Some(Path::new("/conf/audit.log")));
    assert_eq!(
        (audit.rotate_size.as_u64(), audit.rotate_daily, audit.keep),
        (0, true, 31)
    );
    let socket = with("socket = \"run/audit.sock\"").unwrap().log.audit.unwrap().socket;
    assert_eq!(socket.as_deref(), Some(Path::new("/conf/run/audit.sock")));
    for (lines, said) in [
        ("", "exactly one of file, socket"),
        ("file = \"a\"\nsocket = \"b\"", "exactly one of file, socket"),
        ("file = \"a\"\nrotate_size = \"1 KiB\"", "log.audit.rotate_size"),
        ("file = \"a\"\nkept = 3", "kept"),
    ] {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(said), "{lines}: {error}");
    }
    let error = parse(&format!("{SMALL}\n[log]\nqueue = \"1 KiB\"")).unwrap_err();
    assert!(error.to_string().contains("log.queue is 1024"), "{error}");
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
        "file",
        "socket",
        "rotate_size",
        "rotate_daily",
        "keep",
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
    needed.extend(std::iter::once(&server.state_dir).chain(&server.spool_dir));
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

#[test]
fn settings_that_make_no_sense_are_refused_with_their_name() {
    let server = |line: &str| format!("[server]\n{line}\n{SMALL}");
    let token = |line: &str| format!("{SMALL}\n{line}\n");
    let under = |section: &str, line: &str| format!("{SMALL}\n[{section}]\n{line}\n");
    let client =
        |identity: &str, more: &str| format!("{SMALL}\n[[client]]\nname = \"c\"\nidentity = \"{identity}\"\n{more}\n");
    let another = |environment: &str, isolation: &str| {
        format!(
            "{SMALL}\nenvironment = {{ CONF = \"a\" }}\n[[token]]\nname = \"u\"\nmodule = \"m.so\"\nslot = 1\npin_env = \"P\"\n\
             environment = {environment}\nisolation = \"{isolation}\"\n"
        )
    };
    let bad = [
        (server("max_connections = 0"), "server.max_connections is 0"),
        (
            server("max_connections_per_client = 0"),
            "server.max_connections_per_client",
        ),
        (server("drain_timeout = \"0s\""), "server.drain_timeout"),
        (server("handshake_timeout = \"0s\""), "server.handshake_timeout"),
        (server("keep_alive_interval = \"0s\""), "server.keep_alive_interval"),
        (server("keep_alive_timeout = \"0s\""), "server.keep_alive_timeout"),
        (server("handshake_timeout = \"169h\""), "to 168h"),
        (server("max_connection_age = \"169h\""), "server.max_connection_age"),
        (server("max_connection_age = \"1us\""), "server.max_connection_age"),
        (
            server("listen = \"127.0.0.1:7443\"\nadmin_listen = \"127.0.0.1:7443\""),
            "server.admin_listen",
        ),
        (server("admin_hosts = [\"https://muhurdar\"]"), "server.admin_hosts"),
        (server("admin_hosts = [\"muhurdar:7480\"]"), "server.admin_hosts"),
        (under("limits", "request_timeout = \"0s\""), "limits.request_timeout"),
        (under("limits", "arrival_timeout = \"0s\""), "limits.arrival_timeout"),
        (under("limits", "large_timeout = \"0s\""), "limits.large_timeout"),
        // Added to one another or to now, these would overflow.
        (
            under("limits", "request_timeout = \"5000000000h\""),
            "limits.request_timeout",
        ),
        (
            under("limits", "large_timeout = \"5000000000h\""),
            "limits.large_timeout",
        ),
        (under("idempotency", "window = \"0s\""), "idempotency.window"),
        (under("idempotency", "window = \"5000000000h\""), "idempotency.window"),
        (under("idempotency", "bytes = \"9 EiB\""), "idempotency.bytes"),
        (token("call_budget = \"0s\""), "call_budget"),
        (token("call_budget = \"5000000000h\""), "call_budget"),
        (token("heartbeat = \"5000000000h\""), "heartbeat"),
        (token("engines = 0"), "engines"),
        (another("{ CONF = \"b\" }", "none"), "\"t\" and \"u\" set CONF"),
        (client("dns:", ""), "identity"),
        (client("dns:şube.example", ""), "identity"),
        (client("uid:root", ""), "uid:1000"),
        (client("uid:007", ""), "uid:1000"),
        (client("cn:c", "[client.quota]\nin_flight = 0"), "quota.in_flight is 0"),
        (
            client("cn:c", "[client.quota]\nin_flight_bytes = \"0 B\""),
            "quota.in_flight_bytes",
        ),
    ];
    for (text, complaint) in bad {
        match parse(&text) {
            Ok(_) => panic!("{text}"),
            Err(error) => assert!(error.to_string().contains(complaint), "{error}: {complaint}"),
        }
    }
    let good = [
        another("{ CONF = \"a\" }", "none"),
        another("{ CONF = \"b\" }", "process"),
        token("heartbeat = \"0s\""),
        under("log", "slow_request = \"0s\""),
        under("idempotency", "entries = 0"),
        server("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\""),
        client("uid:0", "[client.quota]\nlarge_in_flight = 0"),
    ];
    for text in good {
        parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
}

#[test]
fn a_host_name_in_capitals_is_the_one_in_the_certificate() {
    let text = format!("{SMALL}\n[[client]]\nname = \"c\"\nidentity = \"dns:Branch-1.Example\"\n");
    assert_eq!(parse(&text).unwrap().clients[0].identity, "dns:branch-1.example");
    let twice = format!("{text}[[client]]\nname = \"d\"\nidentity = \"dns:branch-1.EXAMPLE\"\n");
    assert!(parse(&twice).unwrap_err().to_string().contains("client identity"));
}

#[test]
fn a_pin_or_key_that_everybody_may_read_is_pointed_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let text = SMALL.replace("/etc/muhurdar/server.key", "server.key");
    let config = Config::parse(&text, Path::new("muhurdar.toml"), folder.path()).unwrap();
    let write = |name: &str, mode: u32| {
        let file = folder.path().join(name);
        std::fs::write(&file, "secret").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!(
        config.open_secrets(),
        [""; 0],
        "what is not there is complained of elsewhere"
    );
    write("pin", 0o600);
    write("server.key", 0o400);
    assert_eq!(config.open_secrets(), [""; 0]);
    write("pin", 0o644);
    std::fs::remove_file(folder.path().join("server.key")).unwrap();
    write("server.key", 0o604);
    let said = config.open_secrets();
    assert_eq!(said.len(), 2);
    assert!(
        said[0].contains("PIN of token \"t\"") && said[1].contains("server.tls"),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains("secret")), "{said:?}");
}
