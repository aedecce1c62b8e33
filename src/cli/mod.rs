//! (room to be built)
pub mod health;
pub mod sql;
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
