//! Tests of [`super`]: what names may be, which versions there are, and what an argument names.

use super::*;

fn name(text: &str) -> Result<String, NameError> {
    text.parse::<RemoteName>().map(|name| name.to_string())
}

#[test]
fn names_have_folders_dots_spaces_and_any_script() {
    let good = [
        "team/app.db",
        "team/folder/sub.folder/app",
        "example.com/a",
        "t/.hidden",
        "t/...",
        "t/app (copy).db",
        "t/a+b=c,d:e~",
        "t/ürün/データ.db",
        "0/e\u{301}",
    ];
    for text in good {
        assert_eq!(name(text), Ok(text.to_owned()));
    }
    let parsed: RemoteName = "team/a/b.db".parse().unwrap();
    assert_eq!((parsed.namespace().as_str(), parsed.path().as_str()), ("team", "a/b.db"));
    assert_eq!(parsed.path().file_name(), "b.db");
    assert_eq!(parsed.path().parts().collect::<Vec<_>>(), ["a", "b.db"]);
}

#[test]
fn hostile_names_are_refused() {
    use NameError::*;
    let cases = [
        ("", NoPath),
        ("team", NoPath),
        ("/app.db", EmptyPart),
        ("team/", EmptyPart),
        ("team//app.db", EmptyPart),
        ("team/app.db/", EmptyPart),
        ("../app.db", Namespace),
        (".hidden/app.db", Namespace),
        ("-team/app.db", Namespace),
        ("te am/app.db", Namespace),
        ("tëam/app.db", Namespace),
        ("team/..", DotPart),
        ("team/./app.db", DotPart),
        ("team/a/../../../etc/passwd", DotPart),
        ("team/-rf", Edge('-')),
        ("team/~root", Edge('~')),
        ("team/ app", Edge(' ')),
        ("team/app /x", Edge(' ')),
    ];
    for (text, error) in cases {
        assert_eq!(name(text), Err(error), "{text:?}");
    }
    let unsafe_ascii = "\0\n\r\t\x1b\x7f\\\"'`$&|;<>*?!#%^[]{}@";
    let unseen =
        "\u{80}\u{9b}\u{a0}\u{ad}\u{200b}\u{200f}\u{202e}\u{2066}\u{3000}\u{feff}\u{fffd}\u{e000}\u{e0041}";
    for c in unsafe_ascii.chars().chain(unseen.chars()) {
        assert_eq!(name(&format!("team/a{c}b")), Err(Character(c)), "{c:?}");
    }
}

#[test]
fn lengths_are_counted_in_bytes() {
    assert!(name(&format!("team/{}", "a".repeat(255))).is_ok());
    assert_eq!(name(&format!("team/{}", "a".repeat(300))), Err(NameError::PartTooLong(300)));
    assert_eq!(name(&format!("team/{}", "ü".repeat(128))), Err(NameError::PartTooLong(256)));
    assert!(name(&format!("{}/a", "n".repeat(64))).is_ok());
    assert_eq!(name(&format!("{}/a", "n".repeat(65))), Err(NameError::Namespace));
    let long = format!("t/{}", "a".repeat(1020).replace("aaaaaaaa", "aaaaaaa/"));
    assert_eq!(name(&long[..1022]).map(|n| n.len()), Ok(1022));
    assert_eq!(name(&format!("{}/b/c", &long[..1021])), Err(NameError::TooLong(1025)));
    // Each half fits, the whole does not.
    let path: ReplicaPath = long[2..1002].trim_end_matches('/').parse().unwrap();
    assert!(RemoteName::new("n".repeat(64).parse().unwrap(), path).is_err());
}

#[test]
fn a_path_is_made_of_anything() {
    let suggest = |parts: &[&str]| ReplicaPath::suggest(parts.iter().copied()).map(|p| p.to_string());
    assert_eq!(suggest(&["my-host", "/home/me/app.db"]).as_deref(), Some("my-host/home/me/app.db"));
    assert_eq!(suggest(&["host", r"C:\data\app.db"]).as_deref(), Some("host/C:/data/app.db"));
    assert_eq!(suggest(&["h", "../../x/./a'b$(c).db"]).as_deref(), Some("h/x/a-b-(c).db"));
    assert_eq!(suggest(&["h", " -rf \n@3"]).as_deref(), Some("h/rf --3"));
    assert_eq!(suggest(&["", "/", "..", "---"]), None);
    let long = suggest(&["h", &"ü/".repeat(2000), &"ü".repeat(2000)]).unwrap();
    assert!(long.len() <= NAME_LEN_MAX && long.parse::<ReplicaPath>().is_ok());
}

#[test]
fn versions() {
    use VersionSelector::{Back, Latest};
    let number = |n| VersionSelector::Number(VersionNumber::new(n).unwrap());
    let parse = str::parse::<VersionSelector>;
    for (text, version) in [
        ("", Latest),
        ("latest", Latest),
        ("latest-0", Latest),
        ("latest-2", Back(2)),
        ("7", number(7)),
        ("v7", number(7)),
        ("18446744073709551615", number(u64::MAX)),
    ] {
        assert_eq!(parse(text), Ok(version), "{text}");
        assert_eq!(parse(&version.to_string()), Ok(version), "{text}");
        assert_eq!(VersionSelector::from_header(&version.to_header()), Ok(version), "{text}");
        assert!(version.to_string().len() <= VERSION_LEN_MAX);
    }
    for text in ["v", "V7", "+7", "-2", "7 ", "latest-", "latest+1", "latest2", "latest--2", "vlatest", "٣"]
    {
        assert_eq!(parse(text), Err(VersionError::Form), "{text}");
    }
    assert_eq!(parse("0"), Err(VersionError::Zero));
    assert_eq!(parse("18446744073709551616"), Err(VersionError::TooLarge));
}

#[test]
fn the_version_header_of_the_public_client() {
    use VersionSelector::{Back, Latest};
    let number = |n| VersionSelector::Number(VersionNumber::new(n).unwrap());
    let header = VersionSelector::from_header;
    assert_eq!([header(""), header("-2"), header("7")], [Ok(Latest), Ok(Back(2)), Ok(number(7))]);
    assert_eq!([header("-0"), header("latest-2"), header("v7")], [Ok(Latest), Ok(Back(2)), Ok(number(7))]);
    assert_eq!([header("-"), header("--2"), header("-x")], [Err(VersionError::Form); 3]);
    assert_eq!([Latest, Back(2), number(7)].map(VersionSelector::to_header), ["", "-2", "7"]);
}

#[test]
fn a_selector_finds_its_version() {
    let v = |n| VersionNumber::new(n).unwrap();
    assert_eq!(VersionSelector::Latest.resolve(v(5)), Some(v(5)));
    assert_eq!(VersionSelector::Back(4).resolve(v(5)), Some(v(1)));
    assert_eq!(VersionSelector::Back(5).resolve(v(5)), None);
    assert_eq!(VersionSelector::Number(v(5)).resolve(v(5)), Some(v(5)));
    assert_eq!(VersionSelector::Number(v(6)).resolve(v(5)), None);
}

fn argument(text: &str) -> Result<Argument, ArgumentError> {
    Argument::parse(OsStr::new(text))
}

#[test]
fn what_begins_like_a_path_or_has_no_slash_is_local() {
    let local =
        ["/a", "./a/b", "../a@3", "~/a:b", "app.db", "app.db@3", ".", "..", "~", "-", "/h:x", "./h:x"];
    for text in local {
        assert_eq!(argument(text), Ok(Argument::Local(text.into())));
    }
    assert_eq!(argument(""), Err(ArgumentError::Empty));
}

#[test]
fn anything_else_is_remote() {
    let remote = |text: &str, version| Ok(Argument::Remote { name: text.parse().unwrap(), version });
    assert_eq!(argument("team/app.db"), remote("team/app.db", None));
    assert_eq!(argument("team/a:b.db"), remote("team/a:b.db", None));
    assert_eq!(argument("team/app.db@"), remote("team/app.db", Some(VersionSelector::Latest)));
    assert_eq!(argument("team/app.db@latest-2"), remote("team/app.db", Some(VersionSelector::Back(2))));
    let seven = VersionSelector::Number(VersionNumber::new(7).unwrap());
    assert_eq!(argument("team/app.db@7"), remote("team/app.db", Some(seven)));
    assert_eq!(argument("team/app.db@v7"), remote("team/app.db", Some(seven)));
    assert!(matches!(argument("team/app.db@x"), Err(ArgumentError::Version { .. })));
    assert!(matches!(argument("team/app.db@7@8"), Err(ArgumentError::Version { .. })));
    assert!(matches!(argument("~team/app.db"), Err(ArgumentError::Name { .. })));
    assert!(matches!(argument("team/"), Err(ArgumentError::Name { .. })));
    assert!(matches!(argument(".../app.db"), Err(ArgumentError::Name { .. })));
}

#[test]
fn the_address_of_a_server_is_no_host_for_ssh() {
    for text in ["http://127.0.0.1:7777/team/app.db", "https://h", "ws://h/a/b@3", "WSS://h:1/a"] {
        assert_eq!(argument(text), Err(ArgumentError::Address(text.into())));
    }
    assert!(matches!(argument("http:a"), Ok(Argument::Ssh { .. })));
    assert!(matches!(argument("./http://h"), Ok(Argument::Local(_))));
}

#[test]
fn a_colon_before_any_slash_is_ssh() {
    let ssh = |destination: &str, path: &str| {
        Ok(Argument::Ssh { destination: destination.into(), path: path.into() })
    };
    assert_eq!(argument("me@host:/srv/app.db"), ssh("me@host", "/srv/app.db"));
    assert_eq!(argument("host:app.db"), ssh("host", "app.db"));
    assert_eq!(argument("host:a:b"), ssh("host", "a:b"));
    assert_eq!(argument("me@[::1]:~/app.db"), ssh("me@[::1]", "~/app.db"));
    assert_eq!(argument("[fe80::2]:a]:b"), ssh("[fe80::2]", "a]:b"));
    for text in [
        ":app.db",
        "host:",
        "@host:a",
        "me@:a",
        "-oProxyCommand=x:a",
        "-host:a",
        "me@-host:a",
        "-me@host:a",
        "a b:c",
        "a;b:c",
        "[::x]:a",
        "a@b@c:d",
        "host:-rf",
        "host:a\nb",
    ] {
        assert_eq!(argument(text), Err(ArgumentError::Ssh(text.into())), "{text:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf8_is_local_or_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let parse = |bytes: &[u8]| Argument::parse(OsStr::from_bytes(bytes));
    assert!(matches!(parse(b"a\xff.db"), Ok(Argument::Local(_))));
    assert!(matches!(parse(b"./a/\xff.db"), Ok(Argument::Local(_))));
    assert_eq!(parse(b"team/\xff.db"), Err(ArgumentError::NotUtf8));
    assert_eq!(parse(b"host:\xff.db"), Err(ArgumentError::NotUtf8));
}
