//! Signatures that `#[plugin]` accepts, and its messages for others. After a change of a message: `TRYBUILD=overwrite`.

#[test]
fn plugins_compile_or_say_why_not() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/first_plugin.rs");
    cases.pass("tests/ui/every_hook.rs");
    cases.compile_fail("tests/ui/not_a_hook.rs");
    cases.compile_fail("tests/ui/arguments.rs");
    cases.compile_fail("tests/ui/wrong_signature.rs");
    cases.compile_fail("tests/ui/wrong_return.rs");
    cases.compile_fail("tests/ui/state.rs");
}
