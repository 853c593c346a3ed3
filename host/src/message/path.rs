//! Paths as routes, peers and plugins see them. What reads them is the ABI's: the fake host of the SDK's tests reads them, too.

pub use castling_abi::rules::path::{PathError, is_plain, is_strict, key_as_sent, read, routed};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(path: &str) -> Result<(String, String), PathError> {
        read(path).map(|read| (read.text.into_owned(), read.key.into_owned()))
    }

    #[test]
    fn detours_are_taken_out_and_segments_decoded_once() {
        for (path, text, key) in [
            ("/", "/", "/"),
            ("*", "*", "*"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a/", "/a/", "/a/"),
            ("//a///b", "/a/b", "/a/b"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b"),
            ("/a/..", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/%61dmin", "/%61dmin", "/admin"),
            ("/@scope%2fpkg", "/@scope%2fpkg", "/@scope%2Fpkg"),
            ("/a%5cb", "/a%5cb", "/a%5Cb"),
            ("/a\\b", "/a%5Cb", "/a%5Cb"),
            ("/a%20b", "/a%20b", "/a%20b"),
            ("/a%2520b", "/a%2520b", "/a%2520b"),
            ("/%c3%a4", "/%c3%a4", "/%C3%A4"),
            ("/.hidden", "/.hidden", "/.hidden"),
            ("/...", "/...", "/..."),
            ("/a;b", "/a;b", "/a;b"),
            ("/a%3Fb%23", "/a%3Fb%23", "/a?b#"),
        ] {
            assert_eq!(both(path), Ok((text.to_owned(), key.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_could_be_another_path_is_refused() {
        for (path, error) in [
            ("/..", PathError::AboveRoot),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/secret", PathError::HiddenDots),
            ("/a/%2e", PathError::HiddenDots),
            ("/admin/..%2fpublic", PathError::HiddenDots),
            ("/app/%2E%2e%5cb", PathError::HiddenDots),
            ("/a/..\\b", PathError::HiddenDots),
            ("/a\\..\\b", PathError::HiddenDots),
            ("/a/..;/b", PathError::HiddenDots),
            ("/a/.;x=y/b", PathError::HiddenDots),
            ("/%zz", PathError::Encoding),
            ("/x%", PathError::Encoding),
            ("/x%4", PathError::Encoding),
            ("/x%+1", PathError::Encoding),
            ("/%00", PathError::Nul),
        ] {
            assert_eq!(both(path), Err(error), "{path}");
        }
    }

    #[test]
    fn what_is_sent_as_it_came_is_compared_by_all_that_it_could_be() {
        for (path, key) in [
            ("/a%2fb", Some("/a/b")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/%zz%4", Some("/%zz%4")),
            ("/%00%20", Some("/%00%20")),
            ("/a%2520b", Some("/a%2520b")),
            ("/%2e%2e/a", None),
            ("/../a", None),
        ] {
            assert_eq!(key_as_sent(path).as_deref(), key, "{path}");
        }
    }

    #[test]
    fn strict_is_what_nobody_reads_otherwise() {
        for path in ["/", "/a", "/a/", "/a/b.c", "/a%20b", "*"] {
            assert!(is_strict(path), "{path}");
        }
        for path in [
            "//", "/a//", "//a", "/a/.", "/./a", "/a/..", "/a\\b", "/a%2fb", "/a%5Cb", "/%2e",
            "/%zz", "/a/../",
        ] {
            assert!(!is_strict(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_has_none_of_these(path in "/[a-c./%\\\\]{0,40}") {
            let has_one = ["%", "\\", "//", "/."].iter().any(|it| path.contains(it));
            prop_assert_eq!(is_plain(path.as_bytes()), !has_one);
        }

        /// A path that is sent on is read as the same, and a peer that decodes it finds nothing new.
        #[test]
        fn a_path_that_was_read_is_read_the_same_again(path in "/[ab./%\\\\;2ef5c]{0,24}") {
            if let Ok(first) = read(&path) {
                prop_assert!(!first.text.contains("//") && !first.text.contains('\\'));
                let again = read(&first.text).expect("it was read before");
                prop_assert_eq!(&again, &first);
                let segments = first.key.split('/');
                prop_assert!(segments.clone().all(|it| it != "." && it != ".."));
                let as_sent = key_as_sent(&first.text).expect("within the root");
                let of_decoded = as_sent.replace('\\', "/");
                prop_assert!(!of_decoded.split('/').any(|it| it == ".."));
            }
        }
    }
}
