//! Includes and environment values.

use super::*;

#[test]
fn environment_values_stand_where_they_are_asked_for() {
    let config = "[plugins.a]\nwasm = { from_env = 'WASM' }\nconfig = { token = { from_env = 'TOKEN', default = 'none' }, list = [{ from_env = 'TOKEN' }] }";
    let site = Site::new(&format!("{config}{REST}"))
        .env("WASM", "p.wasm")
        .env("TOKEN", "s3cret");
    let plugin = &site.load().unwrap().plugins["a"];
    assert_eq!(plugin.wasm, site.path("p.wasm"));
    assert_eq!(plugin.config, r#"{"list":["s3cret"],"token":"s3cret"}"#);

    let site = Site::new(&format!("{config}{REST}")).env("WASM", "p.wasm");
    assert_eq!(
        site.errors(),
        ["site.toml:3:70: environment variable \"TOKEN\" is not set, and there is no default"]
    );

    let site =
        Site::new(&format!("[log]\nlevel = {{ from_env = 'LEVEL' }}{REST}")).env("LEVEL", "s3cret");
    let error = "site.toml:2:9: level { from_env = 'LEVEL' }: expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    assert_eq!(site.errors(), [error], "the value may be secret");
}

#[test]
fn an_unset_environment_value_is_told_once() {
    let config = "[workers]\ncount = 0\n[log]\nlevel = { from_env = 'LEVEL' }";
    let expected = [
        "site.toml:2:9: count 0: expected 1 to 512",
        "site.toml:4:9: environment variable \"LEVEL\" is not set, and there is no default",
    ];
    assert_eq!(Site::new(&format!("{config}{REST}")).errors(), expected);
}

#[test]
fn a_table_that_only_looks_like_an_environment_value_is_a_table() {
    let config = "[plugins.a]\nwasm = 'p.wasm'\nconfig = { x = { from_env = 'A', other = 1 }, y = { from_env = 5 } }";
    assert_eq!(
        good(config).plugins["a"].config,
        r#"{"x":{"from_env":"A","other":1},"y":{"from_env":5}}"#
    );
}

#[test]
fn includes_are_sorted_and_relative_to_their_file() {
    let site = Site::new("include = ['conf.d/*.toml']\n[[routes]]\nname = 'first'\nupstream = 'app'\n")
        .file("conf.d/b.toml", "include = ['../more/c.toml']\n[[routes]]\nname = 'b'\nupstream = 'app'\n")
        .file("conf.d/a.toml", "[listeners.web]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'a'\nupstream = 'app'\n")
        .file("conf.d/.hidden.toml", "nonsense")
        .file("more/c.toml", "[upstreams.app]\npeers = ['a:1']\n[plugins.p]\nwasm = 'here.wasm'\n[[routes]]\nname = 'c'\nupstream = 'app'\n")
        .file("more/here.wasm", "");
    let config = site.load().unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["first", "a", "b", "c"]);
    assert_eq!(
        fs::canonicalize(&config.plugins["p"].wasm).unwrap(),
        fs::canonicalize(site.path("more/here.wasm")).unwrap()
    );
}

#[test]
fn an_include_that_finds_nothing() {
    refused(
        "include = ['none/*.toml', 'none.toml']",
        "site.toml:1:27: include \"none.toml\": none.toml cannot be read: No such file or directory (os error 2)",
    );
    refused(
        "include = ['a[.toml']",
        "site.toml:1:12: include \"a[.toml\": not a pattern: invalid range pattern",
    );
}

#[test]
fn an_include_does_not_come_back() {
    let site =
        Site::new(&format!("include = ['a.toml']{REST}")).file("a.toml", "include = ['site.toml']");
    assert_eq!(
        site.errors(),
        ["a.toml:1:12: include \"site.toml\": site.toml includes itself"]
    );
    let site = Site::new(&format!("include = ['a.toml', '*a.toml']{REST}")).file("a.toml", "");
    assert_eq!(
        site.errors(),
        ["site.toml:1:22: include \"*a.toml\": a.toml is already included at site.toml:1:12"]
    );
}

#[test]
fn includes_nest_to_a_depth() {
    let mut site = Site::new(&format!("include = ['1.toml']{REST}"));
    for depth in 1..=9 {
        site = site.file(
            &format!("{depth}.toml"),
            format!("include = ['{}.toml']", depth + 1),
        );
    }
    let error = "8.toml:1:12: include \"9.toml\": 9.toml is nested too deep: expected at most 8 includes within one another";
    assert_eq!(site.errors(), [error]);
}

#[test]
fn files_do_not_define_the_same() {
    let site = Site::new(&format!(
        "include = ['a.toml']\n[log]\nlevel = 'info'{REST}"
    ))
    .file(
        "a.toml",
        "[log]\n[upstreams.app]\npeers = ['b:1']\n[listeners]\nweb = { bind = '127.0.0.1:1' }\n",
    );
    let errors = [
        "a.toml:1:1: [log] is already at site.toml:2:1: expected once in all files",
        "a.toml:2:12: upstream \"app\" is already defined at site.toml:6:12",
        "a.toml:5:1: listener \"web\" is already defined at site.toml:4:12",
    ];
    assert_eq!(site.errors(), errors);
}

#[test]
fn errors_in_an_included_file_name_it() {
    let site = Site::new(&format!("include = ['a.toml']{REST}"))
        .file("a.toml", "\n[workers]\n  count = 0");
    assert_eq!(site.errors(), ["a.toml:3:11: count 0: expected 1 to 512"]);
}

#[test]
fn texts_of_files_stand_where_they_are_asked_for() {
    let config = "include = ['conf.d/a.toml']\n[plugins.a]\nwasm = { from_file = 'name' }\n\
        config = { key = { from_file = 'conf.d/key' }, list = [{ from_file = 'conf.d/crlf' }] }";
    let site = Site::new(&format!("{config}{REST}"))
        .file("name", "p.wasm\n")
        .file("conf.d/key", "s3cret key\n\n")
        .file("conf.d/crlf", "one\r\n")
        .file("conf.d/a.toml", "[plugins.b]\nwasm = '../p.wasm'\nconfig = { key = { from_file = 'key' }, from_file = { from_file = 'key', or = 1 } }");
    let config = site.load().unwrap_or_else(|errors| panic!("{errors}"));
    let of = |name: &str| config.plugins[name].config.as_str();
    assert_eq!(of("a"), r#"{"key":"s3cret key\n","list":["one"]}"#);
    let plain = r#"{"from_file":{"from_file":"key","or":1},"key":"s3cret key\n"}"#;
    assert_eq!(of("b"), plain);
}

#[test]
fn a_text_of_a_file_is_not_told() {
    let site = Site::new(&format!(
        "[log]\nlevel = {{ from_file = 'key' }}\n[[routes]]\nupstream = {{ from_file = 'key' }}\nhosts = [{{ from_file = 'key' }}]{REST}"
    ));
    let errors = site.file("key", "s3cret \"key\"").errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    let told = errors.iter().find(|error| error.contains("s3cret"));
    assert_eq!(told, None);
    let level = "site.toml:2:9: level { from_file = 'key' }: expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    assert_eq!(errors[0], level);
}

#[test]
fn a_file_whose_text_cannot_be_had() {
    let keys = ["none", "folder", "pipe", "large", "latin"];
    let lines = keys.map(|key| format!("{key} = {{ from_file = '{key}' }}\n"));
    let config = format!(
        "[plugins.a]\nwasm = 'p.wasm'\n[plugins.a.config]\n{}",
        lines.concat()
    );
    let site = Site::new(&format!("{config}{REST}"))
        .file("folder/file", "")
        .file("large", vec![b'x'; (1 << 20) + 1])
        .file("latin", b"s3cr\xe9t");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, site.path("pipe"), mode).unwrap();
    let expected = [
        "4:8: from_file: none cannot be read: No such file or directory (os error 2)",
        "5:10: from_file: folder cannot be read: it is not a regular file",
        "6:8: from_file: pipe cannot be read: it is not a regular file",
        "7:9: from_file: large is too large: expected at most 1 MiB, and 64 MiB in all files of the config",
        "8:9: from_file: latin is not UTF-8 from byte 4 on",
    ];
    assert_eq!(
        site.errors(),
        expected.map(|error| format!("site.toml:{error}"))
    );
}
