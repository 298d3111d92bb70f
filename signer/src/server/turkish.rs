//! What a refusal says to people in Turkish: `google.rpc.LocalizedMessage`. One sentence for each reason, with its place or its values;
//! what exactly is wrong with a document stands in the English message beside it.

use muhurdar_xades as xades;

use crate::{admission::Bound, refusal::Refusal};

/// RFC 5646.
pub(super) const LOCALE: &str = "tr";

/// The sentence.
pub(super) fn sentence(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Document(document) => format!("{}{}.", of_a_document(document), place(document)),
        Refusal::DocumentType { .. } => "Belge, istekte bildirilen türden değil.".to_owned(),
        Refusal::DocumentTooLarge { limit, .. } => {
            format!("Belge fazla büyük: en çok {limit} bayt kabul ediliyor; daha büyükleri SealLarge ile gönderilir.")
        }
        Refusal::MessageTooLarge { limit, item, .. } => format!(
            "{}İleti fazla büyük: en çok {limit} bayt kabul ediliyor; daha büyük belgeler SealLarge ile gönderilir.",
            item.map_or_else(String::new, |item| format!("items[{item}]: "))
        ),
        Refusal::TaxpayerMismatch { requested, named, .. } => match named {
            Some(named) => {
                format!("İstek {requested} numaralı mükellefin mührünü istiyor, ama belge {named} numarasını gösteriyor.")
            }
            None => format!("İstek {requested} numaralı mükellefin mührünü istiyor, ama belge kimin mühürleyeceğini açıkça göstermiyor."),
        },
        Refusal::CertificateUnusable { taxpayer, serial, .. } => {
            format!("{taxpayer} numaralı mükellefin {serial} seri numaralı sertifikasıyla şu anda mühür basılamaz.")
        }
        Refusal::CertificateChanged { .. } => {
            "Mükellef artık başka bir sertifikayla mühürlüyor; GetSeal ile yeni sertifikayı alıp isteği yeniden hazırlayın.".to_owned()
        }
        Refusal::SealUnknown(wanted) => format!("Burada {wanted} için bir mühür yok, ya da bu istemciye açık değil."),
        Refusal::Request { field, .. } => format!("İstekteki {field} alanı geçersiz; nedeni İngilizce iletide."),
        Refusal::KeyReused => "Bu idempotency anahtarı başka bir istek için kullanılmış; her belgeye kendi anahtarını verin.".to_owned(),
        Refusal::Call { .. } => "Çağrı bu haliyle kabul edilemez; nedeni İngilizce iletide.".to_owned(),
        Refusal::Unauthenticated => {
            "Geçerli bir istemci sertifikası gösterilmedi; süresi dolmamış ve iptal edilmemiş bir sertifikayla bağlanın.".to_owned()
        }
        Refusal::Access(_) => "Bu istemcinin ya da sertifikasının bu işlem için yetkisi yok; yetkiyi servisi işleten verir.".to_owned(),
        Refusal::Overloaded { .. } => "Servis şu anda daha fazla iş kabul edemiyor; biraz sonra yeniden deneyin.".to_owned(),
        Refusal::Quota { bound, limit, .. } => {
            let what = match bound {
                Bound::Rate => "saniyede belge",
                Bound::Documents => "aynı anda belge",
                Bound::Bytes => "aynı anda bayt",
                Bound::Large => "aynı anda büyük belge",
            };
            let value = limit.value.unwrap_or_default();
            format!("İstemci kendi kotasına ulaştı ({what}: {value}); biraz sonra yeniden deneyin.")
        }
        Refusal::Deadline(_) => "İsteğin süresi doldu, ya da süresi içinde yanıtlanamayacak.".to_owned(),
        Refusal::TokenUnavailable { .. } => "Şu anda mühür basabilecek bir HSM yok; biraz sonra yeniden deneyin.".to_owned(),
        Refusal::Draining => "Servis kapanıyor ve bu belgeyi mühürlemedi; başka bir sunucuyla deneyin.".to_owned(),
        Refusal::Internal => "Serviste iç hata; ayrıntısı servisin günlüğünde.".to_owned(),
    }
}

fn of_a_document(refusal: &xades::Refusal) -> &'static str {
    use xades::RefusalKind;
    match refusal.kind() {
        RefusalKind::Malformed => "Belge düzgün biçimli (well-formed) bir XML değil; nedeni İngilizce iletide",
        RefusalKind::DtdForbidden => "Belgede DTD (<!DOCTYPE>) olamaz",
        RefusalKind::Limit => "Belge, izin verilenden daha derin, daha geniş ya da daha büyük",
        RefusalKind::DocumentType => {
            "Belgenin kök öğesi mühürlenen bir belge türünün değil, ya da istekte bildirilenden başka"
        }
        RefusalKind::AlreadySealed => "Belge zaten mühürlü",
        // As in `Refusal::reason`.
        _ => "Belgede mühür için uygun bir yer yok",
    }
}

fn place(refusal: &xades::Refusal) -> String {
    let at = |at: xades::Position| format!(" (satır {}, sütun {})", at.line, at.column);
    refusal.position().map(at).unwrap_or_default()
}
