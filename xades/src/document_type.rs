/// A document that carries a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DocumentType {
    /// UBL-TR Invoice: e-Fatura, e-Arşiv Fatura, e-SMM.
    Invoice,
    /// UBL-TR CreditNote: e-Müstahsil Makbuzu.
    CreditNote,
    /// UBL-TR DespatchAdvice: e-İrsaliye.
    DespatchAdvice,
    /// UBL-TR ReceiptAdvice: the answer to an e-İrsaliye.
    ReceiptAdvice,
    /// UBL-TR ApplicationResponse: KABUL, RED and IADE answers.
    ApplicationResponse,
    /// e-Arşiv report.
    EArsivReport,
    /// e-Defter ledger.
    EDefterLedger,
    /// e-Defter berat.
    EDefterBerat,
    /// HR-XML ProcessUserAccount or CancelUserAccount.
    UserAccount,
}
