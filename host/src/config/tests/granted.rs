//! Files that plugins are granted.

use super::*;

fn granting(files: &str) -> String {
    format!("[plugins.a]\nwasm = 'p.wasm'\ngrants = {{ files = {files} }}{REST}")
}

#[test]
fn files_are_found_from_the_folder_of_the_config() {
    let site = Site::new(&format!("include = ['conf.d/a.toml']{REST}"))
        .file(
            "conf.d/a.toml",
            "[plugins.a]\nwasm = '../p.wasm'\ngrants = { files = ['data/geo.mmdb', './list'] }",
        )
        .file("conf.d/data/geo.mmdb", "x")
        .file("conf.d/list", "x");
    let config = site.load().unwrap_or_else(|errors| panic!("{errors}"));
    let files: Vec<_> = config
        .granted_files()
        .map(|(plugin, file)| (plugin.as_str(), file.name.as_str(), file.whole_path()))
        .collect();
    let expected = [
        ("a", "data/geo.mmdb", site.path("conf.d/data/geo.mmdb")),
        ("a", "./list", site.path("conf.d/./list")),
    ];
    assert_eq!(files, expected);
    assert_eq!(config.workers.max_granted_file_bytes, 1 << 30);
    assert_eq!(good("").plugins.len(), 0);
}

#[test]
fn what_is_no_file_of_the_folder_is_refused() {
    let site = Site::new(&granting(
        "['folder', 'pipe', 'none', 'out', '../up', 'in', 'in', '/dev/zero', '']",
    ));
    let site = site.file("folder/x", "").file("in", "");
    std::os::unix::fs::symlink("/etc/passwd", site.path("out")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, site.path("pipe"), mode).unwrap();
    let folder = site.path(".").components().collect::<PathBuf>();
    let errors = site.errors().into_iter();
    let errors: Vec<_> = errors
        .map(|error| error.replace(&folder.display().to_string(), "DIR"))
        .collect();
    let expected = [
        "21: file folder cannot be opened: it is not a regular file",
        "31: file pipe cannot be opened: it is not a regular file",
        "39: file none cannot be opened: No such file or directory (os error 2)",
        "47: file out cannot be opened: it leads out of DIR",
        "54: files '../up': expected the path of a file, without `..`",
        "69: file \"in\" is already in the list",
        "75: file /dev/zero cannot be opened: it is not a regular file",
        "88: files '': expected the path of a file",
    ];
    assert_eq!(errors, expected.map(|error| format!("site.toml:3:{error}")));
}

#[test]
fn hosts_are_patterns_with_a_port() {
    let hosts = |hosts: &str| {
        let plugin = format!("[plugins.a]\nwasm = 'p.wasm'\ngrants.hosts = {hosts}\n");
        good(&plugin).plugins["a"].grants.hosts.clone().unwrap()
    };
    assert_eq!(hosts("[]").names, []);
    let plain = "tls = { verify = false }";
    let granted = hosts(&format!(
        "{{ names = ['*.Example.com:443', '[::1]:80'], networks = ['::1'], {plain} }}"
    ));
    let host = |host: &str, is_wildcard, port| GrantedHost {
        host: host.to_owned(),
        is_wildcard,
        port,
    };
    let names = [host("example.com", true, 443), host("::1", false, 80)];
    assert_eq!(granted.names, names);
    assert!(granted.admit("::1".parse().unwrap()));
    assert!(!granted.admit("127.0.0.1".parse().unwrap()));
    let rule = "expected HOST:PORT such as \"api.example.com:443\" or \"*.example.com:443\"";
    for name in [
        "a.test",
        "*:443",
        "*.com:443",
        "*.10.0.0.1:80",
        "a.*.test:80",
        "a.test:0",
        "https://a.test:1",
        "",
    ] {
        refused(
            &format!(
                "[plugins.a]\nwasm = 'p.wasm'\ngrants.hosts = {{ names = ['{name}'], {plain} }}\n"
            ),
            &format!("site.toml:3:27: names '{name}': {rule}"),
        );
    }
    refused(
        &format!(
            "[plugins.a]\nwasm = 'p.wasm'\ngrants.hosts = {{ names = [], networks = ['unix'], {plain} }}\n"
        ),
        "site.toml:3:41: networks a list: expected networks; a name has no Unix socket",
    );
}
