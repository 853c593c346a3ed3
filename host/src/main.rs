//! The gateway's binary.

fn main() -> std::process::ExitCode {
    castling::main()
}
