"""Personal data: what counts as which type, and what only looks like it. `«` and `»` stand around what is found."""

from __future__ import annotations

import pytest

from policies.sensitivity import pii
from policies.sensitivity.phones import REGIONS
from policies.sensitivity.scanner import RuleSet, Scanner

SCANNERS = {name: Scanner((RuleSet("pii", 1, pii.rules_for((name,), REGIONS)),)) for name in pii.RULES}
ALL = Scanner((RuleSet("pii", 1, pii.rules_for(pii.DEFAULT, REGIONS)),))

FOUND = {
    "EMAIL_ADDRESS": [
        "write to «taro.yamada+news@example.co.jp» today",
        "メールは«taro@example.jp»までお願いします",
        "<«a_b@sub.example.com»>, thanks",
        "ｍａｉｌ：«ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍ»です",
        "«ta\u200bro@exam\u00adple.com»",
        "mailto:«x@xn--r8jz45g.xn--zckzah»",
        "«o'hara@example.ie» is the address",
        "送信先は«hanako@例え.jp»です",
        "https://example.com/?to=«bob@example.com»&x=1",
        "«abc.@docomo.ne.jp»と«d..e@ezweb.ne.jp»",
        "email%3A%20«alice%40example.com»",
        r"{\"mail\":\"«alice\u0040example.com»\"}",
        "«alice&#64;example.com»",
    ],
    "PHONE_NUMBER": [
        "電話は«090-1234-5678»です",
        "電話：«０３－１２３４－５６７８»まで",
        "携帯«09012345678»に連絡ください",
        "TEL «(03)1234-5678»",
        "フリーダイヤル«0120-123-456»",
        "«03ー1234ー5678»（代表）",
        "call «(212) 555-0123» now",
        "reach me at «212-555-0123 ext. 45».",
        "my number is «+1-212-555-0123»",
        "Tel. «+81 90 1234 5678»",
        "«+44 (0)20 7946 0958»",
        "London: «020 7946 0958»",
        "Berlin «030 901820»",
        "phone: «555-0199»",
        "«+91 98765 43210» is in India",
        "«+33 1 42 68 53 00» à Paris",
        "«0\u200b90-1234-5678»",
        "«090-1234-5678» «080-9876-5432»",
        "tel%3A«%2B81-90-1234-5678»",
    ],
    "CREDIT_CARD": [
        "card «4111 1111 1111 1111» is",
        "«4111111111111111»",
        "«5555-5555-5555-4444»",
        "amex «3782 822463 10005»",
        "カード番号は«３５３０１１１３３３３０００００»です",
        "12 «4111111111111111» 34",
        "diners «30569309025904»",
        "«4111 1111 1111 1111» 123",
        "«4\u200d111111111111111»",
        "unionpay «6200000000000005»",
        "maestro card «675984103431»",
    ],
    "IBAN_CODE": [
        "to «DE89 3704 0044 0532 0130 00» please",
        "«GB82WEST12345698765432»",
        "my iban is «gb82west12345698765432»",
        "«FR1420041010050500013M02606»、よろしく",
        "ＩＢＡＮ：«ＤＥ８９３７０４００４４０５３２０１３０００»",
    ],
    "IP_ADDRESS": [
        "from «203.0.113.7».",
        "サーバは«10.0.0.5»です",
        "«2001:db8:85a3::8a2e:370:7334» answered",
        "«6b9c:12ee:6ea6:45f0:854b:10ea:8666:79c4»",
        "[«fe80::1ff:fe23:4567:890a»]:80",
        "«192.168.0.1»:8080",
        "«１９２．１６８．０．１»",
    ],
    "MAC_ADDRESS": [
        "eth0 «00:1A:2b:3c:4D:5e» up",
        "«00-1a-2b-3c-4d-5e»",
        "cisco «001a.2b3c.4d5e»",
        "端末«00:1a:2b:3c:4d:5e»の",
    ],
    "URL": [
        "see «https://example.com/a?b=c#d».",
        "詳細は«https://example.jp/»まで",
        "(«http://example.com:8080»)",
        "«www.example.co.uk/path» works",
        "«ftp://files.example.org/x»",
        "visit «example.com» today",
    ],
    "US_SSN": [
        "SSN «536-22-1234»",
        "«536 22 1234»",
        "social security number: «536221234»",
        "ssn is «５３６－２２－１２３４»",
    ],
    "JP_MY_NUMBER": [
        "マイナンバーは«1234 5678 9018»です",
        "個人番号：«123456789018»",
        "my number: «1234-5678-9018»",
        "マイナンバー　«１２３４５６７８９０１８»",
        "氏名,個人番号\n佐藤,«123456789018»\n鈴木,«987654321093»",
        "«123456789018»（個人番号）",
    ],
    "JP_POSTAL_CODE": [
        "〒«100-0001» 東京都千代田区",
        "〒«1000001»",
        "郵便番号は«150-0002»です",
        "住所: «１５０－０００２»",
        "«530-0001» 大阪府大阪市",
    ],
    "JP_ADDRESS": [
        "住所は«東京都港区芝公園4丁目2番8号»です",
        "«東京都港区芝公園４－２－８»へ",
        "«北海道札幌市中央区北1条西2丁目» に",
        "«神奈川県横浜市西区みなとみらい2-2-1»",
        "«京都府京都市下京区東塩小路町901番地»",
        "本社:«世田谷区太子堂1-2-3»にあります",
        "«千葉県千葉市美浜区中瀬二丁目一番»",
    ],
    "PASSPORT": [
        "passport no. «TR1234567»",
        "パスポート番号は«ＴＫ１２３４５６７»です",
        "旅券番号：«MZ7654321»",
        "US passport «123456789»",
    ],
    "DRIVER_LICENSE": [
        "driver's license: «F1628235»",
        "運転免許証番号は«301234567890»です",
        "driving licence «MORGA657054SM9IJ»",
        "license number «2270-66-1551»",
    ],
    "DATE_OF_BIRTH": [
        "born on «1980-04-13»",
        "DOB: «4/13/1980»",
        "生年月日：«1980年4月13日»",
        "生年月日は«昭和55年4月13日»",
        "date of birth «April 13, 1980»",
        "«1980年4月13日»生まれ",
        "誕生日: «S55.4.13»",
        "geboren am «13.04.1980»",
        "birthday: «13 Apr 1980»",
        "生年月日 «平成元年1月8日»",
    ],
    "MEDICAL_RECORD": [
        "MRN: «12345678»",
        "カルテ番号は«0012345»",
        "patient ID «AB-123456»",
        "診察券番号：«１２３４５６»",
    ],
}

NOT_FOUND = {
    "EMAIL_ADDRESS": [
        "icon@2x.png",
        "user@localhost",
        "@decorator.name",
        "a@b",
        "git@github.com:org/repo.git",
        "5 @ 3.50 each",
        "lodash@4.17.21",
        "連絡先＠会議室",
    ],
    "PHONE_NUMBER": [
        "2023-12-22 04:34:22",
        "order 2024-000123",
        "1234567890",
        "3.14159265358979",
        "4111 1111 1111 1111",
        "192.168.100.200",
        "between 1990-2000",
        "v1.2.3.4567",
        "ISBN 978-4-00-310101-8",
        "536-22-1234",
        "123e4567-e89b-12d3-a456-426614174000",
        "0.0012345678",
        "1,234,567,890円",
        "品番 123-4567",
        "00000000000",
        "12/25/2023",
        "2023年12月25日",
        "id_09012345678",
        "Boston, MA 02110-1301, USA",
        "Fifth Floor, Boston, MA\n#   02110-1301  USA",
        "Mobile CriOS/23.0.886.0 Mobile Safari/6532.23.2",
        "8*r**2 + 13305118750*p**10",
        "DE89 3704 0044 0532 0130 01",
    ],
    "CREDIT_CARD": [
        "4111 1111 1111 1112",
        "1234567890123456",
        "0000000000000000",
        "1699999999999",
        "4111-1111 1111-1111",
        "3.4111111111111111",
        "a4111111111111111",
        "注文番号 4111111111111112",
        "9999999999999995",
    ],
    "IBAN_CODE": [
        "DE89 3704 0044 0532 0130 01",
        "GB82 WEST 1234 5698 7654",
        "XX82WEST12345698765432",
        "AB12 this is text",
    ],
    "IP_ADDRESS": [
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "version 10.0.19.1",
        "rv:1.9.6.20",
        "v1.2.3.4",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.0",
        "std::cout",
        "Face::Bed",
        "12:34:56",
        "::",
        "::1",
        "バージョン 1.2.3.4",
        "01.02.03.04",
        "a::b::c",
    ],
    "MAC_ADDRESS": ["00:00:00:00:00:00", "00:1A:2b:3c:4D", "00:1a-2b:3c:4d:5e", "ff:ff:ff:ff:ff:ff", "12:34:56:78:90"],
    "URL": ["http:/example", "file.txt", "a.b.c", "taro@example.com", "e.g. this", "self.com_port"],
    "US_SSN": [
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "536-00-1234",
        "536-22-0000",
        "078-05-1120",
        "536221234",
        "536-22-12345",
        "1536-22-1234",
        "123-45-6789",
    ],
    "JP_MY_NUMBER": [
        "123456789018",
        "マイナンバー 123456789012",
        "個人番号制度は2015年に",
        "マイナンバー 1234567890180",
    ],
    "JP_POSTAL_CODE": ["100-0001", "TEL 03-100-0001", "住所 1-100-0001", "品番 123-4567", "〒マーク"],
    "JP_ADDRESS": [
        "東京都の人口は1400万人",
        "東京都港区にはおよそ26万人が住む",
        "大阪府大阪市は人口2位の都市",
        "京都府警",
        "市区町村",
        "第3回港区議会",
        "市場で1-2-3を買う",
    ],
    "PASSPORT": ["passport control at gate 12", "TR1234567", "パスポートを忘れた 2023年"],
    "DRIVER_LICENSE": [
        "driver's license renewed in 2023",
        "F1628235",
        "MIT license number of files",
        "運転免許を取った",
    ],
    "DATE_OF_BIRTH": ["1980-04-13", "born on 2023-02-30", "born in Tokyo", "生まれは東京", "会議は1980年4月13日"],
    "MEDICAL_RECORD": ["12345678", "medical records of 2023", "患者は12人"],
}


def places(marked: str) -> tuple[str, list[tuple[int, int]]]:
    text, spans = "", []
    for piece in marked.split("«"):
        inside, mark, rest = piece.partition("»")
        if mark:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + rest
    return text, spans


@pytest.mark.parametrize(("name", "marked"), [(name, text) for name, texts in FOUND.items() for text in texts])
def test_it_is_found_where_it_stands(name, marked):
    text, spans = places(marked)
    found = [(entity.start, entity.end) for entity in SCANNERS[name].find(text) if entity.type == name]
    assert [text[a:b] for a, b in found] == [text[a:b] for a, b in spans]
    assert found == spans


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in NOT_FOUND.items() for text in texts])
def test_what_only_looks_like_it_is_not_found(name, text):
    assert SCANNERS[name].find(text) == []


def test_every_type_has_both_kinds_of_examples():
    assert set(FOUND) == set(NOT_FOUND) == set(pii.RULES)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog. In 2023, 15 % of 1,234 requests took 200 ms.",
        "本日の会議では、推論リクエストをどこに送るかを議論しました。遅延は200ミリ秒以内です。",
        "for (int i = 0; i < 1024; ++i) { std::cout << a[i] << 0x7fffffff; } // see section 4.1.2.3",
        "SHA-256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "id: 123e4567-e89b-12d3-a456-426614174000, 1712345678, 1712345678901, v1.12.0",
        "2023-01-01T00:00:00+09:00 INFO 200 GET /index.html 0.123s",
        "価格は12,345円（税込13,579円）、品番はAB-1234、数量10個、2024年4月1日発売。",
        "π = 3.14159265358979, e = 2.718281828459045, 1e-10, 6.02214076e23",
        "Chapter 12.3.4, pages 100-120, ISBN 978-4-00-310101-8, https://example.com/docs",
    ],
)
def test_everyday_text_has_nothing(text):
    assert ALL.find(text) == []
