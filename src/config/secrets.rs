//! What is hidden of addresses and options before anybody sees them.

/// Parts of the names of what holds a secret, in addresses and among librdkafka's options.
const SECRET_WORDS: [&str; 9] = [
    "key.pem",
    "pass",
    "pwd",
    "secret",
    "token",
    "assertion",
    "jaas",
    "sslkey",
    "ssl-key",
];
/// Options of SASL that hold none. Of those that are not here some do, and a name that is misspelt may.
const OPEN_SASL: [&str; 5] = [
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.kerberos.service.name",
    "sasl.oauthbearer.method",
];

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether the value of that option of Kafka's client is nobody's business.
pub(super) fn hide_option(option: &str) -> bool {
    is_secret(option) || (option.starts_with("sasl.") && !OPEN_SASL.contains(&option))
}

/// The address with `***` for the password, wherever an address may hold one.
pub(super) fn hide_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // The last one: a password may have more of them, and whatever else ends one in an address that was written well.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => {
            let user = login.split([':', '?']).next().unwrap_or_default();
            let password = if user.len() < login.len() { ":***" } else { "" };
            (format!("{user}{password}@"), rest)
        }
        None => (String::new(), rest),
    };
    let Some((host, query)) = rest.split_once('?') else {
        return format!("{scheme}{login}{rest}");
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    let query = pairs.collect::<Vec<_>>().join("&");
    format!("{scheme}{login}{host}?{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            (
                "postgres://user:hunter2@host/db",
                "postgres://user:***@host/db",
            ),
            (
                "postgres://user:hun/ter@2@host/db",
                "postgres://user:***@host/db",
            ),
            ("postgres://user@host/db", "postgres://user@host/db"),
            ("rediss://:hunter2@host:6379/0", "rediss://:***@host:6379/0"),
            ("user:hunter2@host", "user:***@host"),
            (
                "postgres://user:hunt?er2@host/db",
                "postgres://user:***@host/db",
            ),
            (
                "postgres://host/db?password=a@b",
                "postgres://host/db:***@b",
            ),
            (
                "postgres://host/db?user=x&password=hunter2&sslmode=disable",
                "postgres://host/db?user=x&password=***&sslmode=disable",
            ),
            (
                "postgres://host/db?sslkey=-----BEGIN&sslcert=/a",
                "postgres://host/db?sslkey=***&sslcert=/a",
            ),
        ] {
            assert_eq!(hide_password(url), shown);
        }
    }

    #[test]
    fn options_that_may_hold_a_secret_are_told_from_others() {
        for secret in [
            "sasl.password",
            "sasl.pasword",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
        ] {
            assert!(hide_option(secret), "{secret}");
        }
        for open in [
            "security.protocol",
            "sasl.mechanism",
            "sasl.username",
            "ssl.ca.location",
            "session.timeout.ms",
        ] {
            assert!(!hide_option(open), "{open}");
        }
    }
}
