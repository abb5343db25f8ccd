//! The module that a source file is, from its path. Pure.

/// Folders below which modules are found, beside those called `python3.N`.
const ROOTS: [&str; 3] = ["site-packages", "dist-packages", "lib-dynload"];

/// Most packages within one another that are looked for.
const PACKAGES_DEEP: usize = 32;

/// The module's dotted name. `is_package` says whether a folder is a package (holds `__init__.py`).
pub(super) fn module_of(path: &str, mut is_package: impl FnMut(&str) -> bool) -> String {
    if let Some(name) = path
        .strip_prefix("<frozen ")
        .and_then(|name| name.strip_suffix('>'))
    {
        return name.to_owned();
    }
    if path.starts_with('<') {
        return path.to_owned();
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let mut names = packages(folder, &mut is_package);
    if stem != "__init__" || names.is_empty() {
        names.push(stem);
    }
    names.join(".")
}

/// The packages that a folder is, outermost first.
fn packages(folder: &str, mut is_package: impl FnMut(&str) -> bool) -> Vec<&str> {
    let components: Vec<&str> = folder.split('/').collect();
    let is_root = |name: &&str| ROOTS.contains(name) || is_library(name);
    if let Some(root) = components.iter().rposition(is_root) {
        return components[root + 1..].to_vec();
    }
    let mut names = Vec::new();
    let mut folder = folder;
    while names.len() < PACKAGES_DEEP
        && is_package(folder)
        && let Some((parent, name)) = folder.rsplit_once('/')
    {
        names.push(name);
        folder = parent;
    }
    names.reverse();
    names
}

fn is_library(name: &str) -> bool {
    let minor = name.strip_prefix("python3.");
    minor.is_some_and(|minor| {
        let digits = minor.trim_end_matches('t');
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::module_of;

    /// Libraries by their root, programs by their packages, what is no file by its name.
    #[test]
    fn modules_have_their_names() {
        let is_package = |folder: &str| folder.starts_with("/srv/app/shop");
        for (path, expected) in [
            ("/usr/lib/python3.11/json/decoder.py", "json.decoder"),
            ("/usr/lib/python3.11/json/__init__.py", "json"),
            ("/v/lib/python3.13t/threading.py", "threading"),
            (
                "/v/lib/python3.8/site-packages/django/db/models/query.py",
                "django.db.models.query",
            ),
            (
                "/usr/lib/python3/dist-packages/yaml/loader.py",
                "yaml.loader",
            ),
            ("/srv/app/shop/cart/views.py", "shop.cart.views"),
            ("/srv/app/shop/__init__.py", "shop"),
            ("/srv/app/manage.py", "manage"),
            ("app.py", "app"),
            ("__init__.py", "__init__"),
            ("script", "script"),
            ("<string>", "<string>"),
            ("<frozen importlib._bootstrap>", "importlib._bootstrap"),
            ("", ""),
        ] {
            assert_eq!(module_of(path, is_package), expected, "{path}");
        }
    }
}
