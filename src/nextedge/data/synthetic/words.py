"""Words for people: cities, names, industries, skills, titles, companies and schools.

Names are drawn word by word from common first and family names of a culture, so that the people
are plausible and invented. Scripts are mixed on purpose: real tenants are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Culture:
    """First and family names that go together; ``family_first`` orders and joins them so."""

    first: tuple[str, ...]
    family: tuple[str, ...]
    joiner: str = " "
    family_first: bool = False


def _culture(first: str, family: str, joiner: str = " ", family_first: bool = False) -> Culture:
    return Culture(tuple(first.split()), tuple(family.split()), joiner, family_first)


CULTURES: dict[str, Culture] = {
    "english": _culture(
        "Ada Ben Chloe Dan Ella Finn Grace Harry Isla Jack Kate Liam Mia Noah Olive Paul Ruth Sam",
        "Ashdown Barlow Colby Dunmore Elwood Farrow Garland Hartwell Ingram Kendal Larkin "
        "Merrow Norwell Oakley Penrose Radley Selwyn Thorne Underhill Wexley",
    ),
    "spanish": _culture(
        "Alba Bruno Carmen Diego Elena Fabián Gloria Hugo Inés Javier Lucía Mateo Nuria Óscar "
        "Paula Rocío Sergio Tomás",
        "Aguilar Benítez Cortés Domínguez Escobar Fuentes Guerrero Herrera Ibáñez Luján Montoya "
        "Núñez Ortega Peralta Quintana Robles Salazar Valverde",
    ),
    "portuguese": _culture(
        "Ana Beatriz Caio Davi Edite Fábio Gabriela Heitor Iara João Lívia Marcos Natália Otávio "
        "Rafaela Tiago",
        "Almeida Barbosa Cardoso Duarte Esteves Figueira Guimarães Lacerda Macedo Nogueira Pacheco "
        "Queirós Ramalho Siqueira Teixeira Vilela",
    ),
    "german": _culture(
        "Anna Bernd Clara Dieter Elke Felix Greta Hannes Ilse Jonas Käthe Lukas Marlene Nils Petra "
        "Rainer Sabine Uwe",
        "Albrecht Böhme Cramer Dietz Eberle Fink Gärtner Haas Jäger Köhler Lindner Möller Neubauer "
        "Pohl Reuter Schäfer Thiel Vogt Weiß Ziegler",
    ),
    "french": _culture(
        "Adèle Bastien Camille Didier Élise François Gaëlle Hélène Inès Jules Léa Marc Noémie "
        "Olivier Pauline Rémi Sylvie Théo",
        "Arnaud Beaumont Chevallier Delorme Évrard Fontaine Garnier Humbert Jourdain Lacroix "
        "Mercier Noël Perrot Renault Sorel Tessier Vasseur",
    ),
    "slavic": _culture(
        "Анна Богдан Віра Данило Олена Федір Галина Ігор Катерина Лев Марія Микола Оксана Павло "
        "Роман Софія Тарас Юлія",
        "Бондаренко Гончар Дорошенко Зоренко Кравець Левченко Мороз Нечай Остапчук Поліщук "
        "Романюк Савчук Ткач Федорук Черненко Шевчук",
    ),
    "greek": _culture(
        "Αγγελική Βασίλης Γιώργος Δήμητρα Ελένη Θάνος Ιωάννα Κώστας Λένα Μαρία Νίκος Πέτρος Σοφία",
        "Αλεξίου Βλάχος Γεωργίου Δημητρίου Ζαχαρίας Καραγιάννης Λάμπρου Μακρής Νικολάου Παππάς "
        "Σταύρου Χρήστου",
    ),
    "arabic": _culture(
        "أمينة باسم جميلة حسن خديجة رامي زينب سامي سلمى طارق عمر فاطمة كريم ليلى مريم نبيل ياسمين",
        "البغدادي الحداد الخطيب الشامي الصباغ العطار القاضي المنصوري النجار الزهراني الحلبي التونسي",
    ),
    "indian": _culture(
        "आरव इशा कबीर काव्या गौरव दीपा नील प्रिया मीरा रोहन सीमा विकास Ananya Dev Kiran Lakshmi "
        "Nikhil Rhea",
        "अग्रवाल जोशी मेहता शर्मा वर्मा Banerjee Chauhan Deshmukh Iyer Kulkarni Menon Nair Pillai "
        "Rao Saxena Trivedi",
    ),
    "chinese": _culture(
        "安然 博文 晨曦 丹 芳 国强 慧 佳怡 建华 静 俊杰 磊 丽娜 明 思远 婷 伟 晓东 雅 子涵",
        "陈 邓 冯 高 郭 何 胡 黄 李 林 刘 罗 马 宋 孙 唐 王 吴 徐 杨 张 赵 周 朱",
        joiner="",
        family_first=True,
    ),
    "japanese": _culture(
        "葵 陽斗 結衣 蓮 さくら 大翔 美咲 湊 凛 悠真 花子 健太 真由 直樹 愛 翔 遥 誠",
        "青木 石田 上野 大野 小川 加藤 木村 近藤 斎藤 清水 高橋 田中 中村 西村 橋本 藤田 松本 村上 森 山口",
        joiner=" ",
        family_first=True,
    ),
    "korean": _culture(
        "서연 민준 지우 하준 수아 도윤 지민 예준 하은 시우 유진 현우 은지 성민 다은 준호",
        "강 고 김 문 박 배 서 송 신 안 오 유 윤 이 임 장 전 정 조 최 한 황",
        joiner="",
        family_first=True,
    ),
    "african": _culture(
        "Abeni Baraka Chidi Dalila Ebele Farai Gathoni Imani Jabari Kofi Lindiwe Makena Nala Obi "
        "Palesa Sefu Thabo Wanjiru Yaa Zola",
        "Abara Boateng Chukwu Dlamini Eze Gitonga Kamau Khumalo Lungu Mensah Mwangi Ndlovu Okafor "
        "Onyango Owusu Sithole Tembo Wekesa",
    ),
    "vietnamese": _culture(
        "An Bình Châu Dũng Giang Hạnh Khôi Linh Minh Ngọc Phúc Quân Thảo Trang Vy",
        "Bùi Dương Đặng Đinh Đỗ Hồ Lê Lương Ngô Nguyễn Phạm Phan Trần Trịnh Võ Vũ",
        family_first=True,
    ),
}

# name | latitude | longitude | culture
_CITIES = """
London | 51.51 | -0.13 | english; New York | 40.71 | -74.01 | english
São Paulo | -23.55 | -46.63 | portuguese; 東京 | 35.68 | 139.69 | japanese
Mumbai | 19.08 | 72.88 | indian; 上海 | 31.23 | 121.47 | chinese
Lagos | 6.52 | 3.38 | african; Ciudad de México | 19.43 | -99.13 | spanish
Berlin | 52.52 | 13.41 | german; Paris | 48.86 | 2.35 | french
القاهرة | 30.04 | 31.24 | arabic; 서울 | 37.57 | 126.98 | korean
San Francisco | 37.77 | -122.42 | english; Bengaluru | 12.97 | 77.59 | indian
北京 | 39.9 | 116.41 | chinese; Київ | 50.45 | 30.52 | slavic
Madrid | 40.42 | -3.7 | spanish; Toronto | 43.65 | -79.38 | english
Nairobi | -1.29 | 36.82 | african; Buenos Aires | -34.6 | -58.38 | spanish
Hà Nội | 21.03 | 105.85 | vietnamese; München | 48.14 | 11.58 | german
Delhi | 28.61 | 77.21 | indian; Chicago | 41.88 | -87.63 | english
Αθήνα | 37.98 | 23.73 | greek; دبي | 25.2 | 55.27 | arabic
大阪 | 34.69 | 135.5 | japanese; Sydney | -33.87 | 151.21 | english
Johannesburg | -26.2 | 28.05 | african; Lisboa | 38.72 | -9.14 | portuguese
Bogotá | 4.71 | -74.07 | spanish; 深圳 | 22.54 | 114.06 | chinese
Lyon | 45.76 | 4.84 | french; Austin | 30.27 | -97.74 | english
Accra | 5.6 | -0.19 | african; Zürich | 47.38 | 8.54 | german
الدار البيضاء | 33.57 | -7.59 | arabic; Rio de Janeiro | -22.91 | -43.17 | portuguese
Manchester | 53.48 | -2.24 | english; 부산 | 35.18 | 129.08 | korean
Montréal | 45.5 | -73.57 | french; Львів | 49.84 | 24.03 | slavic
Santiago | -33.45 | -70.67 | spanish; Hyderabad | 17.39 | 78.49 | indian
Boston | 42.36 | -71.06 | english; Barcelona | 41.39 | 2.17 | spanish
Sài Gòn | 10.82 | 106.63 | vietnamese; Wien | 48.21 | 16.37 | german
Seattle | 47.61 | -122.33 | english; Θεσσαλονίκη | 40.64 | 22.94 | greek
Одеса | 46.48 | 30.72 | slavic; 福岡 | 33.59 | 130.4 | japanese
Cape Town | -33.92 | 18.42 | african; Dublin | 53.35 | -6.26 | english
Hamburg | 53.55 | 9.99 | german; Bruxelles | 50.85 | 4.35 | french
Porto | 41.16 | -8.63 | portuguese; 成都 | 30.57 | 104.07 | chinese
Melbourne | -37.81 | 144.96 | english; Lima | -12.05 | -77.04 | spanish
"""


def _city(row: str) -> tuple[str, float, float, str]:
    name, latitude, longitude, culture = row.split(" | ")
    return name, float(latitude), float(longitude), culture


CITIES = tuple(_city(row) for line in _CITIES.strip().splitlines() for row in line.split("; "))


@dataclass(frozen=True, slots=True)
class Industry:
    """What people of an industry do and know; ``titles`` are the company's departments."""

    name: str
    titles: tuple[str, ...]
    skills: tuple[str, ...]
    companies: tuple[str, ...]


# name | titles | skills | companies
_INDUSTRIES = """
Software | Backend Engineer, Data Scientist, Product Designer, Site Reliability Engineer | Python, Rust, Kubernetes, SQL, machine learning, distributed systems, TypeScript, testing | Systems, Software, Labs, Cloud
Finance | Risk Analyst, Portfolio Manager, Auditor, Actuary | accounting, valuation, derivatives, compliance, financial modelling, underwriting, audit | Capital, Bank, Insurance, Partners
Healthcare | Nurse, Physician, Clinical Researcher, Pharmacist | patient care, triage, epidemiology, clinical trials, pharmacology, radiology, nutrition | Clinic, Hospital, Health, Care
Education | Teacher, Lecturer, Curriculum Designer, School Principal | curriculum design, tutoring, assessment, mathematics, literacy, e-learning, mentoring | Academy, Learning, College, Tutors
Media | Journalist, Film Editor, Photographer, Copywriter | copywriting, video editing, photography, storytelling, podcasting, illustration, fact-checking | Media, Studio, Press, Pictures
Manufacturing | Process Engineer, Machinist, Quality Inspector, Plant Manager | CAD, lean manufacturing, robotics, welding, quality control, metallurgy, maintenance | Works, Industries, Motors, Tools
Construction | Architect, Civil Engineer, Site Manager, Surveyor | structural analysis, surveying, building information modelling, carpentry, urban planning, concrete | Builders, Architects, Construction, Homes
Retail | Store Manager, Buyer, Merchandiser, Supply Planner | merchandising, inventory, pricing, customer service, e-commerce, visual display, sourcing | Market, Stores, Trading, Goods
Hospitality | Chef, Hotel Manager, Event Planner, Sommelier | cooking, event planning, wine, guest relations, baking, menu design, food safety | Kitchen, Hotels, Catering, Bakery
Energy | Power Engineer, Geologist, Wind Technician, Grid Operator | power systems, solar, wind turbines, geology, energy storage, grid operation, hydraulics | Energy, Power, Solar, Grid
Law | Solicitor, Paralegal, Legal Counsel, Mediator | contract law, litigation, mediation, intellectual property, legal research, arbitration | Legal, Chambers, Law, Counsel
Agriculture | Agronomist, Farm Manager, Food Scientist, Veterinarian | agronomy, irrigation, soil science, animal health, crop planning, beekeeping, forestry | Farms, Seeds, Orchards, Dairy
"""


def _industry(row: str) -> Industry:
    name, *lists = row.split(" | ")
    titles, skills, companies = (tuple(text.split(", ")) for text in lists)
    return Industry(name, titles, skills, companies)


INDUSTRIES = tuple(map(_industry, _INDUSTRIES.strip().splitlines()))
GENERAL_SKILLS = tuple(
    "project management, public speaking, negotiation, spreadsheets, leadership, writing, "
    "translation, data analysis, teaching, marketing, sales, hiring".split(", ")
)
COMPANY_HEADS = tuple(
    "Amberline, Bluefern, Cedarpoint, Dovetail, Eastmere, Foxglove, Granary, Harbourlight, "
    "Inkwell, Juniper, Kestrel, Lanternfish, Marigold, Northgate, Orchid, Pinnace, Quarry, "
    "Redshank, Saltmarsh, Tamarind, Umbra, Verdigris, Willowherb, Yarrow, Zephyrine, Brightwater, "
    "Copperbeech, Driftwood, Evenfall, Firefly, Glasswing, Halcyon".split(", ")
)
SCHOOL_FORMS = tuple(
    "University of {}, {} Institute of Technology, {} State College, {} Business School, {} "
    "School of Arts, {} Polytechnic, {} Medical School, {} Open University".split(", ")
)
LEVELS = ("Junior ", "", "", "Senior ", "Lead ")
INTERESTS = tuple(
    "mountain hiking, chess, street photography, choir singing, trail running, pottery, open "
    "data, urban gardening, board games, sailing, jazz, cycling, volunteering, science fiction, "
    "bird watching, cooking for friends, climbing, old maps".split(", ")
)
