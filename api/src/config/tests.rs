use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn serve(line: &str) -> ServeArgs {
    match parse(line).unwrap().command {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn serving_needs_no_flag() {
    let args = serve("rollcall serve");
    assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(args.database.data_dir, PathBuf::from(".rollcall"));
    assert_eq!(
        (args.jwt.jwt_issuer, args.jwt.jwt_audience),
        ("rollcall".into(), "rollcall".into())
    );
    assert_eq!((args.limits.rate_per_second, args.limits.rate_burst), (200, 1_000));
    assert_eq!(args.limits.connections_max, 20_000);
    assert_eq!(args.limits.request_timeout_ms, 10_000);
    assert!(args.policy.heartbeat_ms.is_none() && args.allow_origin.is_empty());
}

#[test]
fn the_replaced_systems_are_switched_one_by_one() {
    use crate::compat::Adapter::{Chat, Planner, Polling, Websocket};
    assert_eq!(serve("rollcall serve").compat.0, [Planner, Chat, Polling, Websocket]);
    let readme = include_str!("../../../README.md");
    assert!(readme.contains("| `--compat planner,chat,polling,websocket` |"), "as in --help");
    assert_eq!(serve("rollcall serve --compat polling,planner").compat.0, [Polling, Planner]);
    assert_eq!(serve("rollcall serve --compat=").compat.0, []);
    assert_eq!(serve("rollcall serve --compat chat,chat").compat.0, [Chat]);
    for wrong in ["websockets", "planner,gopher"] {
        assert!(parse(&format!("rollcall serve --compat {wrong}")).is_err());
    }
    let ws = |flags: &str| serve(&format!("rollcall serve {flags}")).compat_settings().websocket;
    assert_eq!((ws("").url_token, ws("").everybody), (true, false));
    assert!(!ws("--ws-url-token false").url_token && ws("--ws-status all").everybody);
    let args = serve("rollcall serve --chat-login-url https://chat.example/login/");
    assert_eq!(args.compat_settings().chat_login_url.unwrap().path(), "/login/");
    for wrong in ["chat.example", "ftp://chat.example/", "unix:/x"] {
        assert!(parse(&format!("rollcall serve --chat-login-url {wrong}")).is_err());
    }
}

#[test]
fn origins_come_in_a_list_and_have_no_path() {
    let args = serve("rollcall serve --allow-origin https://a.example,http://localhost:5173");
    assert_eq!(args.allow_origin, ["https://a.example", "http://localhost:5173"]);
    assert!(parse("rollcall serve --allow-origin https://a.example/x").is_err());
    assert!(parse("rollcall serve --allow-origin a.example").is_err());
}

#[test]
fn every_flag_is_also_an_environment_variable() {
    let mut command = Cli::command();
    command.build();
    let serve = command.find_subcommand("serve").unwrap();
    for arg in serve.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        if ["help", "version"].contains(&long) {
            continue;
        }
        let expected = format!("ROLLCALL_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(expected.as_str()));
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for line in [
        "rollcall",
        "rollcall nope",
        "rollcall serve --nope",
        "rollcall serve --listen nowhere",
        "rollcall serve --rate-burst 0",
        "rollcall token",
        "rollcall token --sub two%20words",
        "rollcall token --sub ana --role king",
        "rollcall token --sub ana --ttl soon",
        "rollcall import",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(parse("rollcall --help").unwrap_err().exit_code(), 0);
}

#[test]
fn a_token_has_several_roles_and_a_time_to_live() {
    let line = "rollcall token --sub ana --role user --role auditor --ttl 30m";
    let Command::Token(args) = parse(line).unwrap().command else { panic!() };
    assert_eq!(args.roles, [Role::User, Role::Auditor]);
    assert_eq!(args.ttl, Duration::from_mins(30));
    let Command::Token(args) = parse("rollcall token --sub ana").unwrap().command else { panic!() };
    assert_eq!((args.roles, args.ttl), (vec![Role::User], Duration::from_hours(8)));
}

#[test]
fn durations_have_a_unit_and_a_sane_size() {
    for (text, seconds) in [("15s", 15), ("30m", 1_800), ("8h", 28_800), ("2d", 172_800)] {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
    }
    assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
    for text in ["", "8", "h", "8y", "0s", "-1h", "1.5h", "8 h", "99999999999999999999d", "40000d"]
    {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn an_import_reads_lines_of_json_unless_told_otherwise() {
    let Command::Import(args) = parse("rollcall import -").unwrap().command else { panic!() };
    assert_eq!((args.file, args.format), (PathBuf::from("-"), ImportFormat::Ndjson));
    let line = "rollcall import auth.log --format pam --year 2024";
    let Command::Import(args) = parse(line).unwrap().command else { panic!() };
    assert_eq!((args.format, args.year), (ImportFormat::Pam, Some(2024)));
}

#[test]
fn a_secret_is_never_printed() {
    let args = serve("rollcall serve --jwt-secret hush-hush");
    assert!(!format!("{args:?}").contains("hush"));
}
