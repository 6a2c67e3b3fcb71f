//! Which options hold secrets, and what is shown instead.

/// Stands for a secret.
const HIDDEN: &str = "***";

/// What is shown instead of an option's value; `None` if it can be shown as it is.
pub fn shown_option(key: &str, value: &str) -> Option<String> {
    if ["password", "secret", "token"].iter().any(|word| key.to_ascii_lowercase().contains(word)) {
        return Some(HIDDEN.into());
    }
    let shown = without_parameter(&without_password(value));
    (shown != value).then_some(shown)
}

/// A URL without the password in `scheme://user:password@host`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password with such a character in it, which is a mistake, must not be shown either.
    let user = rest.rsplit_once('@').map_or(authority, |(user, _)| user);
    let Some((name, _)) = user.split_once(':').filter(|_| rest.contains('@')) else { return url.to_owned() };
    format!("{scheme}://{name}:{HIDDEN}@{}", &rest[user.len() + 1..])
}

/// A URL without the value of a parameter that is called a password or the like.
fn without_parameter(url: &str) -> String {
    let Some((front, query)) = url.split_once('?') else { return url.to_owned() };
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if shown_option(key, value).is_some() => format!("{key}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    format!("{front}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        let shown = |value: &str| shown_option("url", value).unwrap_or_else(|| "as it is".into());
        assert_eq!(shown_option("password", "x").as_deref(), Some("***"));
        assert_eq!(shown_option("Secret", "").as_deref(), Some("***"));
        assert_eq!(
            shown("postgres://ann:p@db:5432/x?a=b&password=p&c"),
            "postgres://ann:***@db:5432/x?a=b&password=***&c"
        );
        assert_eq!(shown("postgres://ann:p/q@r@db/x"), "postgres://ann:***@db/x");
        assert_eq!(shown("http://ann@host/x"), "as it is");
        assert_eq!(shown("http://host:80/a:b"), "as it is");
        assert_eq!(shown("/tmp/a@b:c"), "as it is");
    }
}
