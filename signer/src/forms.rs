//! How seals are written for whom: the configuration's form, then the client's, then the taxpayer's.

use std::{collections::HashMap, sync::Arc};

use muhurdar_xades::Policy;

use crate::config::{Config, Form};

/// The policies of all clients and taxpayers.
#[derive(Debug, Default)]
pub struct Forms {
    default: Arc<Policy>,
    by_client: HashMap<String, Form>,
    by_taxpayer: HashMap<String, Form>,
}

impl Forms {
    /// Reads them out of a configuration, whose forms have been checked.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let said = |(name, form): (&String, &Form)| (!form.is_empty()).then(|| (name.clone(), form.clone()));
        Self {
            default: Arc::new(applied(&config.sealing.form, &Policy::default())),
            by_client: config
                .clients
                .iter()
                .map(|c| (&c.name, &c.form))
                .filter_map(said)
                .collect(),
            by_taxpayer: config
                .taxpayers
                .iter()
                .map(|(number, t)| (number, &t.form))
                .filter_map(said)
                .collect(),
        }
    }

    /// How a seal of this taxpayer is written for this client.
    #[must_use]
    pub fn policy(&self, client: &str, taxpayer: &str) -> Arc<Policy> {
        let particular = [self.by_client.get(client), self.by_taxpayer.get(taxpayer)];
        let mut policy = Arc::clone(&self.default);
        for form in particular.into_iter().flatten() {
            policy = Arc::new(applied(form, &policy));
        }
        policy
    }
}

fn applied(form: &Form, base: &Policy) -> Policy {
    form.over(base).expect("the configuration has checked every form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taxpayers_form_goes_over_the_clients_and_the_clients_over_the_default() {
        let role = |text: &str| Form {
            claimed_role: Some(text.to_owned()),
            ..Form::default()
        };
        let zone = Form {
            signing_time_zone: Some("Z".to_owned()),
            ..Form::default()
        };
        let forms = Forms {
            default: Arc::new(applied(&role("Tedarikçi"), &Policy::default())),
            by_client: HashMap::from([("a".to_owned(), zone), ("b".to_owned(), role("b"))]),
            by_taxpayer: HashMap::from([("1234567890".to_owned(), role(""))]),
        };
        let written = |client, taxpayer| forms.policy(client, taxpayer).claimed_role.clone();
        assert_eq!(written("a", "1111111111").as_deref(), Some("Tedarikçi"));
        assert_eq!(written("b", "1111111111").as_deref(), Some("b"));
        assert_eq!(written("b", "1234567890"), None);
        assert_ne!(
            forms.policy("a", "1111111111").zone,
            forms.policy("b", "1111111111").zone
        );
    }
}
