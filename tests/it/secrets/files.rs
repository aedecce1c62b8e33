//! A mounted secret: Kubernetes swaps a link named `..data` to a directory with the other values.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// Puts a directory with this key behind the link, as the kubelet does: beside the former one, then by one rename.
fn mount(mounted: &Path, moment: &str, key: &str) {
    let data = mounted.join(moment);
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("api-key"), format!("{key}\n")).unwrap();
    fs::write(data.join("core-key"), CORE_KEY).unwrap();
    symlink(moment, mounted.join("..data_tmp")).unwrap();
    fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
}

#[tokio::test]
async fn a_mounted_secret_is_followed() {
    let (world, mounted) = (World::new().await, tempfile::tempdir().unwrap());
    mount(mounted.path(), "..2026_1", FIRST);
    for name in ["api-key", "core-key"] {
        symlink(format!("..data/{name}"), mounted.path().join(name)).unwrap();
    }
    let secrets = format!("secrets: [{{from: 'files:{}', name: store}}]\n", mounted.path().display());
    let sidecar = world.sidecar(&secrets).start().await;
    assert_first(&sidecar).await;
    mount(mounted.path(), "..2026_2", SECOND);
    fs::remove_dir_all(mounted.path().join("..2026_1")).unwrap();
    assert_second(&sidecar).await;
    assert!(metric(&sidecar, "secrets_store_load_duration_ms{store=\"store\"}").await.is_some());
    assert_eq!(metric(&sidecar, "secrets_store_errors{store=\"store\"}").await, Some(0.0));
}

#[tokio::test]
async fn a_directory_that_goes_away_changes_nothing() {
    let (world, mounted) = (World::new().await, tempfile::tempdir().unwrap());
    let folder = mounted.path().join("app");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("API_KEY"), FIRST).unwrap();
    fs::write(folder.join("CORE_KEY"), CORE_KEY).unwrap();
    let secrets = format!("secrets: [{{from: 'files:{}', name: store}}]\n", folder.display());
    let sidecar = world.sidecar(&secrets).start().await;
    assert_first(&sidecar).await;
    fs::rename(&folder, mounted.path().join("away")).unwrap();
    let failed = "secrets_store_errors{store=\"store\"}";
    sidecar.wait_until("it is told", async || metric(&sidecar, failed).await >= Some(2.0)).await;
    assert_first(&sidecar).await;
    assert_eq!(
        sidecar.stderr().matches("secret store cannot be read again").count(),
        1,
        "{}",
        sidecar.stderr()
    );
    fs::write(mounted.path().join("away/API_KEY"), SECOND).unwrap();
    fs::rename(mounted.path().join("away"), &folder).unwrap();
    assert_second(&sidecar).await;
    assert!(sidecar.stderr().contains("secret store can be read again"), "{}", sidecar.stderr());
}
