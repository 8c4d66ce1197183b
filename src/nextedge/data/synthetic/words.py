"""The words that synthetic users and items are made of; all invented."""

GIVEN = (
    "Ada Bo Chen Dara Elif Farid Gita Hana Ivo Jun Kofi Lena Mina Nils Omar Pia Quinn Rosa Sami "
    "Tuva Uma Vera Wei Xenia Yara Zane Amara Björn Chloé Dmitri Émile Fátima Goran Håkon Íris "
    "José Kaja Łucja Müge Noël Øyvind Paweł Renée Søren Thuy Ünal 明 花子 지민 Юлия Νίκος ليلى"
).split()
FAMILY = (
    "Abara Brandt Castro Dahl Eriksen Fontaine Gupta Haas Ito Jansen Kimura Lindqvist Moreau "
    "Novak Okafor Petrov Quist Rossi Sato Tanaka Ueda Vargas Weber Xu Yilmaz Zhou Ångström "
    "Çelik Đorđević Gómez Hånes Jørgensen Ková Nuñez Şahin Szabó Žižek 王 佐藤 김 Иванова"
).split()
INDUSTRIES = {
    "Software": (("Engineer", "Data Scientist", "Product Manager", "Designer"),
                 ("python", "sql", "kubernetes", "react", "machine learning", "rust", "ux")),
    "Health": (("Nurse", "Physician", "Lab Technician", "Therapist"),
               ("triage", "radiology", "care planning", "genomics", "first aid", "research")),
    "Finance": (("Analyst", "Accountant", "Risk Manager", "Trader"),
                ("excel", "valuation", "audit", "derivatives", "compliance", "sql")),
    "Education": (("Teacher", "Lecturer", "Librarian", "Dean"),
                  ("curriculum", "mentoring", "statistics", "writing", "languages", "research")),
    "Media": (("Editor", "Journalist", "Producer", "Photographer"),
              ("storytelling", "video editing", "interviews", "writing", "design", "podcasts")),
    "Energy": (("Technician", "Geologist", "Planner", "Electrician"),
               ("solar", "grid", "safety", "drilling", "maintenance", "gis")),
    "Retail": (("Buyer", "Store Manager", "Merchandiser", "Planner"),
               ("pricing", "logistics", "negotiation", "visual merchandising", "excel")),
    "Law": (("Lawyer", "Paralegal", "Notary", "Mediator"),
            ("contracts", "litigation", "compliance", "negotiation", "writing")),
}  # fmt: skip
CITIES = (
    ("Norvik", 59.3, 18.1), ("Halden", 60.4, 5.3), ("Marena", 41.4, 2.2), ("Kessel", 52.5, 13.4),
    ("Porto Alvo", 38.7, -9.1), ("Lakeview", 41.9, -87.6), ("San Rio", 37.8, -122.4),
    ("Asahi", 35.7, 139.7), ("Nagpura", 19.1, 72.9), ("Kumasa", 5.6, -0.2), ("Valdora", -33.4, -70.7),
    ("Easton", 51.5, -0.1), ("Tarnow Nowy", 52.2, 21.0), ("Mirabel", 45.5, -73.6),
    ("Jinhai", 31.2, 121.5), ("Alto Verde", -23.6, -46.6), ("Windhoven", -26.2, 28.0),
    ("Selim", 41.0, 29.0), ("Hanseong", 37.6, 127.0), ("Corvo", 40.7, -74.0),
)  # fmt: skip
SCHOOLS = ("University", "Institute of Technology", "College", "School of Business", "Academy")
COMPANIES = ("Labs", "Systems", "Group", "Partners", "Works", "Holdings", "Studio", "Cooperative")
CATEGORIES = {
    "Books": ("novel", "guide", "atlas", "memoir", "poems", "anthology"),
    "Courses": ("course", "workshop", "bootcamp", "masterclass", "seminar"),
    "Outdoors": ("tent", "backpack", "lantern", "stove", "boots", "map"),
    "Kitchen": ("kettle", "pan", "knife", "grinder", "bowl", "oven dish"),
    "Music": ("album", "guitar", "headphones", "synthesiser", "record player"),
    "Garden": ("seeds", "spade", "planter", "trellis", "hose"),
    "Games": ("board game", "puzzle", "card game", "controller", "dice set"),
    "Office": ("desk", "chair", "notebook", "lamp", "monitor stand"),
    "Fitness": ("mat", "dumbbells", "bicycle", "running shoes", "rope"),
    "Travel": ("suitcase", "city guide", "rail pass", "adapter", "neck pillow"),
}
ADJECTIVES = (
    "quiet bright compact folding northern handmade classic lively portable slow golden plain "
    "modern sturdy gentle vivid everyday hidden little grand"
).split()
