//! Extensions of a test's own. Servers from 18 on look for them in folders that are named by a setting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A folder of extensions, gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Extensions(tempfile::TempDir);

impl Extensions {
    /// No extension yet.
    pub(crate) fn new() -> Extensions {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let made = Extensions(folder);
        fs::create_dir(made.inner()).expect("the folder is writable");
        for path in [made.0.path(), &made.inner()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        }
        made
    }

    fn inner(&self) -> std::path::PathBuf {
        self.0.path().join("extension")
    }

    /// Adds an extension of one version, with further lines for its control file.
    #[must_use]
    pub(crate) fn with(self, name: &str, version: &str, control: &str, script: &str) -> Extensions {
        let write = |file: &Path, text: &str| fs::write(file, text).expect("the folder is writable");
        let control = format!("default_version = '{version}'\n{control}\n");
        write(&self.inner().join(format!("{name}.control")), &control);
        write(&self.inner().join(format!("{name}--{version}.sql")), script);
        self
    }

    /// The line of postgresql.conf that has a server look here, too.
    pub(crate) fn setting(&self) -> String {
        format!("extension_control_path = '{}:$system'", self.0.path().display())
    }
}
